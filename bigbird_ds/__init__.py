"""Distributed long-context pretraining of BigBird and BigBirdPegasus on PyTorch and DeepSpeed.

Names are loaded when they are first used: ``import bigbird_ds`` takes milliseconds and no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigbird_ds.models.bigbird import BigBirdModel
    from bigbird_ds.models.configuration import BigBirdConfig
    from bigbird_ds.models.masked_lm import BigBirdForMaskedLM
    from bigbird_ds.models.pretraining import BigBirdForPreTraining

__version__ = "0.1.0"

__all__ = [
    "BigBirdConfig",
    "BigBirdForMaskedLM",
    "BigBirdForPreTraining",
    "BigBirdModel",
]

_HOMES = {
    "BigBirdConfig": "bigbird_ds.models.configuration",
    "BigBirdForMaskedLM": "bigbird_ds.models.masked_lm",
    "BigBirdForPreTraining": "bigbird_ds.models.pretraining",
    "BigBirdModel": "bigbird_ds.models.bigbird",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
