"""A CUDA out-of-memory error as a user error that says what to lower."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from bigbird_ds import log
from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.planning.fit import smaller


@contextlib.contextmanager
def saying_what_to_lower(config: RunConfig, world_size: int) -> Iterator[None]:
    """Turn a ``torch.OutOfMemoryError`` into a ConfigError.

    Every rank that meets it logs it: the others do not know of it.

    Raises:
        ConfigError: the GPU ran out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as cause:
        error = ConfigError(
            "out of GPU memory",
            seen=" ".join(str(cause).split()),
            needed="less memory for this run, or a GPU that no other process uses",
            change=f"{what_to_lower(config, world_size)}; `bigbird-ds plan` shows what each needs, "
            "docs/out_of_memory.md what each costs",
        )
        if log.rank:
            log.logger.error("error: %s", error)
        raise error from cause


def what_to_lower(config: RunConfig, world_size: int) -> str:
    """The keys to change, in the order in which to try them."""
    changes = [word for word, _ in smaller(config, world_size)]
    changes += [f"parallel.sequence above {config.parallel.sequence}"] if world_size > 1 else []
    return ", then ".join([*changes, "a shorter data.sequence_length"])
