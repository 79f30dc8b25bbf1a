"""Tied tensors in checkpoints and in memory: which of them have the same values.

A config may have ``tie_word_embeddings: true`` while the weights file has both tensors of a tie,
with different values. Then nothing is tied: each name keeps its own values, as in transformers 5.
(transformers 4 silently drops one of the two.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bigbird_ds.log import logger
from bigbird_ds.models.weights import RenamedTensors, Tensors


def settle_ties(
    model_class: Any, tensors: Tensors, config: Any, origin: str
) -> tuple[Any, Tensors]:
    """Return ``config`` and ``tensors``, made untied if tied tensors differ.

    Args:
        model_class: the class to be loaded.
        tensors: their names may have or lack the class's base prefix.
        config: the config of the model.
        origin: the folder, for the log.

    Returns:
        Config and tensors, unchanged if tied tensors agree. Otherwise the config has
        ``tie_word_embeddings`` false, and the tensors include all tied names; those missing from
        the file are copies.
    """
    differing = differing_copies(model_class, tensors, config)
    if not differing:
        return config, tensors
    logger.warning(
        "%s: tie_word_embeddings is true, but the stored %s differs from the tensor it would be "
        "tied "
        "to; both are loaded, untied (tie_word_embeddings false)",
        origin,
        ", ".join(differing),
    )
    names = {name: name for name in tensors.names}
    for group in _groups(model_class, tensors):
        found = [name for name in group.values() if name is not None]
        names |= {name: found[0] for name, there in group.items() if found and there is None}
    return config.replace(tie_word_embeddings=False), RenamedTensors(tensors, names)


def differing_copies(model_class: Any, tensors: Tensors, config: Any) -> list[str]:
    """Names of saved tensors that differ from the tensor the config ties them to.

    Args: see :func:`settle_ties`.
    """
    if not config.tie_word_embeddings:
        return []
    differing: list[str] = []
    for group in _groups(model_class, tensors):
        found = [name for name in group.values() if name is not None]
        differing += [name for name in found[1:] if not _same_on_file(tensors, found[0], name)]
    return differing


def _groups(model_class: Any, tensors: Tensors) -> list[dict[str, str | None]]:
    """For each group of tied parameters: name in the model -> name in the file, or None."""
    prefix = model_class.base_prefix + "."
    on_file = {name.removeprefix(prefix): name for name in tensors.names}
    groups = []
    for source in dict.fromkeys(model_class.tied_names.values()):
        names = [source, *(name for name, of in model_class.tied_names.items() if of == source)]
        groups.append({name: on_file.get(name.removeprefix(prefix)) for name in names})
    return groups


def still_tied(tied_names: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether tied ``tensors`` in memory have the same values; absent copies count as tied."""
    return all(
        name not in tensors or _same(tensors[name], tensors[source])
        for name, source in tied_names.items()
    )


def _same_on_file(tensors: Tensors, first: str, second: str) -> bool:
    if tensors.shape(first) != tensors.shape(second):
        return False
    return _same(tensors.read(first), tensors.read(second))


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.shape != second.shape:
        return False
    if first.device == second.device and first.data_ptr() == second.data_ptr():
        return first.stride() == second.stride()
    wide = torch.promote_types(first.dtype, second.dtype)
    return torch.equal(first.to(wide), second.to(first.device, wide))
