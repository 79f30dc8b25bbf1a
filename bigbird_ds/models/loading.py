"""Loads saved tensors into a model by name; missing ones are newly initialized or an error.

Names may have the base-model prefix in the file but not in the model, or the other way round. For
tied tensors any copy is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from bigbird_ds.errors import CheckpointError
from bigbird_ds.log import logger
from bigbird_ds.models.weights import Tensors

_NAMED_AT_MOST = 8  # tensors listed in an error or a warning


@dataclass
class LoadingInfo:
    """How loading went; ``from_pretrained(output_loading_info=True)`` returns it.

    Attributes:
        missing: in the model but not in the file; newly initialized.
        unexpected: in the file but not in the model.
        mismatched: (name, shape in the file, shape in the model); newly initialized.
    """

    missing: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)
    mismatched: set[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        """Return a dict with transformers' keys."""
        return {
            "missing_keys": self.missing,
            "unexpected_keys": self.unexpected,
            "mismatched_keys": self.mismatched,
            "error_msgs": [],
        }


@torch.no_grad()
def load_tensors(
    model: Any, tensors: Tensors, origin: str, ignore_mismatched_sizes: bool = False
) -> LoadingInfo:
    """Set every parameter and buffer of ``model``.

    Args:
        model: a ``PretrainedModel``; its weights may be uninitialized.
        tensors: the saved tensors.
        origin: name of their source, for errors and warnings.
        ignore_mismatched_sizes: newly initialize tensors whose shape differs.

    Raises:
        CheckpointError: tensors of another shape, or missing tensors, unless their whole part
            (``part_names``) is missing.
    """
    ties = model.ties()
    own = {name: value for name, value in model.state_dict().items() if name not in ties}
    sources = _match_names(model, tensors.names, own, ties)
    info = LoadingInfo(unexpected=_unused(model, tensors.names, sources))
    info.missing = {name for name in own if name not in sources}
    _check_missing(model, own, sources, info, origin)
    shapes = {name: tensors.shape(source) for name, source in sources.items()}
    wrong = [name for name in sources if shapes[name] != tuple(own[name].shape)]
    if wrong and not ignore_mismatched_sizes:
        raise CheckpointError(
            "tensor shapes do not match the config",
            seen=", ".join(f"{name} {shapes[name]}" for name in wrong[:_NAMED_AT_MOST]),
            needed=", ".join(f"{name} {tuple(own[name].shape)}" for name in wrong[:_NAMED_AT_MOST]),
            change="config.json, the overrides, or the folder",
        )
    for name in wrong:
        info.mismatched.add((name, shapes[name], tuple(own[name].shape)))
        del sources[name]
    _warn(model, info, origin)
    for name in sorted({*info.missing, *wrong}):  # first: other tensors of the module may be saved
        model.start_fresh(name)
    for name, source in sources.items():
        own[name].copy_(tensors.read(source))
    return info


def _match_names(
    model: Any, found: list[str], own: dict[str, torch.Tensor], ties: dict[str, str]
) -> dict[str, str]:
    """Map names in the model to names in the file, with or without the base prefix in either."""
    prefix = model.base_prefix + "."
    by_tail = {name.removeprefix(prefix): name for name in found}
    sources = {}
    for name in own:
        copies = [copy for copy, source in ties.items() if source == name]
        stand_in = [model.stand_ins[name]] if name in model.stand_ins else []
        for candidate in (name, *copies, *stand_in):
            if (tail := candidate.removeprefix(prefix)) in by_tail:
                sources[name] = by_tail[tail]
                break
    return sources


def _unused(model: Any, found: list[str], sources: dict[str, str]) -> set[str]:
    prefix = model.base_prefix + "."
    used = {*sources.values(), *model.ties()}
    tails = {name.removeprefix(prefix) for name in used}
    return {name for name in found if name.removeprefix(prefix) not in tails}


def _check_missing(
    model: Any,
    own: dict[str, torch.Tensor],
    sources: dict[str, str],
    info: LoadingInfo,
    origin: str,
) -> None:
    """Raise CheckpointError for missing tensors, except those of parts missing as a whole."""
    there = {_part_of(model, name) for name in sources}
    absent = [
        name
        for name in own
        if name in info.missing and ((part := _part_of(model, name)) is None or part in there)
    ]
    if absent:
        shown = ", ".join(f"{name} {tuple(own[name].shape)}" for name in absent[:_NAMED_AT_MOST])
        more = len(absent) - _NAMED_AT_MOST
        raise CheckpointError(
            f"tensors of {type(model).__name__} are missing",
            seen=f"{origin} lacks {shown}" + (f" and {more} more" if more > 0 else ""),
            needed="every tensor of the model",
            change="the folder, or the class it is loaded into",
        )


def _part_of(model: Any, name: str) -> str | None:
    """The optional part of the model (see ``part_names``) that ``name`` belongs to, or None."""
    tail = name.removeprefix(model.base_prefix + ".")
    parts = model.part_names
    return next((part for part in parts if (tail + ".").startswith(part + ".")), None)


def _warn(model: Any, info: LoadingInfo, origin: str) -> None:
    name = type(model).__name__
    unknown = sorted(tensor for tensor in info.unexpected if not _part_of(model, tensor))
    if unknown:
        logger.warning("tensors not used by %s: %s", name, unknown[:_NAMED_AT_MOST])
    for part in sorted({_part_of(model, tensor) or "" for tensor in info.missing}):
        logger.warning("%s: not in %s, newly initialized: %s", name, origin, part)
    for tensor, found, wanted in sorted(info.mismatched):
        logger.warning(
            "%s: %s is %s in %s, newly initialized as %s", name, tensor, found, origin, wanted
        )
