"""The job's number in run config values, for sweeps: ``output=runs/{SLURM_ARRAY_TASK_ID}``."""

from __future__ import annotations

import os
import re
from typing import Any

from bigbird_ds.errors import ConfigError

# The same on every rank, and after a requeue.
JOB_VARIABLES = (
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_JOB_ID",
    "SGE_TASK_ID",
    "PBS_ARRAY_INDEX",
)
_PLACE = re.compile(r"\{(" + "|".join(JOB_VARIABLES) + r")\}")


def fill_in_job(value: Any) -> Any:
    """``value`` with ``{SLURM_ARRAY_TASK_ID}`` and the like replaced in every text of it.

    Raises:
        ConfigError: the variable is not set.
    """
    if isinstance(value, str):
        return _PLACE.sub(lambda match: _variable(match[1], value), value)
    if isinstance(value, dict):
        return {key: fill_in_job(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill_in_job(inner) for inner in value]
    return value


def _variable(name: str, text: str) -> str:
    if name not in os.environ:
        raise ConfigError(
            f"{name} is not set",
            seen=text,
            needed="a job of an array, in which the scheduler sets it",
            change="the run config or the command line; or set the variable",
        )
    return os.environ[name]
