"""Write a checkpoint from any layout (the folder's format: ``bigbird_ds.hub.checkpoints``).

Each rank copies its share to host memory, and from there writes it into a hidden temporary folder,
which is renamed once it is complete: a visible checkpoint is never partial.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bigbird_ds import files
from bigbird_ds.errors import CheckpointError
from bigbird_ds.file_records import FileRecord
from bigbird_ds.hub.checkpoints import (
    CONFIG_NAME,
    FORMAT,
    INDEX_NAME,
    LATEST_NAME,
    MANIFEST_NAME,
    STATE_NAME,
    VERSION,
    TrainingState,
    list_checkpoints,
    step_folder,
    step_of,
)
from bigbird_ds.log import logger
from bigbird_ds.models.weights import write_tensor_file
from bigbird_ds.training.checkpoints.disk import (
    Kept,
    delete_in_background,
    hidden,
    hide_leftovers,
    make_room,
)
from bigbird_ds.training.deepspeed.state import equals_module, full_tensors
from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.ranks.progress import PATIENCE_AT_SAVE


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is to hold, copied, so that training may continue.

    Attributes:
        step: optimizer steps done.
        weights, moments: the tensors that this rank writes, in host memory, by name in the file.
        texts: contents of the JSON files without the index and the manifest, by name.
    """

    step: int
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    texts: dict[str, Any]


def take_snapshot(state: TrainingState, engine: Any, model: nn.Module, ranks: Ranks) -> Snapshot:
    """Copy the training state to host memory, each rank its share; collective.

    Raises:
        RankFailure: on every rank, if the gathered weights differ from the module's.
        FloatingPointError: on every rank, if a tensor holds a non-finite number.
    """
    weights, moments, drifted = _own_share(engine, model, ranks)
    ranks.jointly(lambda: _require_equal(drifted))
    ranks.jointly(lambda: _require_finite(weights | moments, state.step))
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "float32"}  # type: ignore[union-attr, operator]
    return Snapshot(
        state.step, weights, moments, texts={CONFIG_NAME: config, STATE_NAME: asdict(state)}
    )


def write_checkpoint(
    output: Path, snapshot: Snapshot, ranks: Ranks, kept: Kept, num_bytes: int = 0
) -> Path:
    """Write ``step-N`` on all ranks, then prune the older ones that need not be ``kept``.

    Collective, on the control group of ``ranks`` alone: it may run in a thread.

    Args:
        num_bytes: what the checkpoint takes; where the disk has less, older ones are removed first.

    Raises:
        NotWrittenError: on every rank, if writing failed on any of them (a full disk, say). The
            last checkpoint is untouched, and a later save may succeed.
        UserError, RankFailure: on every rank, if any of them failed in another way.
    """
    final = step_folder(output, snapshot.step)
    temporary = final.with_name(f".{final.name}.tmp")
    together = _Together(ranks, temporary, num_bytes)
    together.write(
        f"making {temporary}",
        lambda: _make_empty(temporary, output, num_bytes, kept) if ranks.is_first else None,
    )
    written = together.write(
        f"writing its files in {temporary}", lambda: _write_share(temporary, snapshot, ranks)
    )
    together.write(
        f"completing {final}", lambda: _finish(temporary, final, snapshot, written, ranks)
    )
    if ranks.is_first:
        _prune(output, final, kept)
    return final


def _prune(output: Path, newest: Path, kept: Kept) -> None:
    """Remove outdated checkpoints, and the partial folders of killed processes.

    A failure to remove one does not end the run. Each is renamed first, so that a visible
    checkpoint is never partial; a thread deletes it while training continues.
    """
    try:
        found, stale = list_checkpoints(output), hide_leftovers(output)
    except OSError as cause:
        logger.warning("older checkpoints cannot be removed: %s", cause)
        return
    # Count back from ``newest``, which a network file system may list late: a later, damaged
    # checkpoint must not push it out.
    before = [folder for folder in found if step_of(folder) < step_of(newest)]
    for old in kept.outdated([*before, newest]):
        try:
            stale.append(hidden(old))
        except OSError as cause:
            logger.warning("%s cannot be removed: %s", old, cause.strerror)
    delete_in_background(stale)


def _require_equal(drifted: list[str]) -> None:
    if drifted:
        raise RuntimeError(
            f"{len(drifted)} weight(s) that DeepSpeed returns differ from what the model computes "
            f"with, {drifted[0]} first; nothing was saved, and the last checkpoint is untouched "
            "(which key of the deepspeed section is new?)"
        )


def _require_finite(tensors: dict[str, Tensor], step: int) -> None:
    # The loss of a step is computed before its update, so it does not show broken weights.
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise FloatingPointError(
            f"{len(broken)} tensor(s) are not finite after step {step}, "
            f"{broken[0]} first; nothing was saved, and the last checkpoint is untouched (try a "
            "smaller optimizer.lr)"
        )


def _make_empty(folder: Path, output: Path, num_bytes: int, kept: Kept) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    make_room(output, num_bytes, kept)
    folder.mkdir(parents=True)


@dataclass(frozen=True)
class _Share:
    """What one rank wrote: the records of its files, and the weights in them."""

    records: list[FileRecord]
    weight_file: str
    weight_bytes: dict[str, int]


def _own_share(
    engine: Any, model: nn.Module, ranks: Ranks
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """The tensors that this rank writes, on the CPU. Each parameter goes to the least loaded rank.

    Returns:
        Weights, moments, and the names of gathered weights that differ from the module's.
    """
    parameters = dict(model.named_parameters())
    drifted: list[str] = []
    loads = [0] * ranks.world_size
    owner: dict[str, int] = {}
    weights: dict[str, Tensor] = {}
    moments: dict[str, Tensor] = {}
    for kind, name, tensor in full_tensors(engine, model):
        is_parameter = kind == "weight" and name in parameters
        if is_parameter and not equals_module(engine, parameters[name], tensor):
            drifted.append(name)
        if name not in owner:
            owner[name] = loads.index(min(loads))
            loads[owner[name]] += tensor.numel()
        if owner[name] == ranks.rank:
            copy = _on_host(tensor)
            if kind == "weight":
                weights[name] = copy
            else:
                moments[f"{kind}/{name}"] = copy
    return weights, moments, drifted


def _on_host(tensor: Tensor) -> Tensor:
    """A contiguous copy in host memory. Pinned for one of a GPU: torch keeps it for the next."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor.detach())


def _write_share(folder: Path, snapshot: Snapshot, ranks: Ranks) -> _Share:
    suffix = "" if ranks.world_size == 1 else f"-{ranks.rank + 1:05d}-of-{ranks.world_size:05d}"
    records = []
    for stem, tensors in (("model", snapshot.weights), ("optimizer", snapshot.moments)):
        path = folder / f"{stem}{suffix}.safetensors"
        write_tensor_file(path, tensors)
        records.append(FileRecord.of(path))
    sizes = {name: tensor.nbytes for name, tensor in snapshot.weights.items()}
    return _Share(records, f"model{suffix}.safetensors", sizes)


def _finish(
    temporary: Path,
    final: Path,
    snapshot: Snapshot,
    written: list[_Share],
    ranks: Ranks,
) -> None:
    """On rank 0: write the JSON files, the manifest last, and rename the folder into place."""
    if not ranks.is_first:
        return
    texts = dict(snapshot.texts)
    if len(written) > 1:
        texts[INDEX_NAME] = {
            "metadata": {"total_size": sum(sum(share.weight_bytes.values()) for share in written)},
            "weight_map": {
                name: share.weight_file for share in written for name in share.weight_bytes
            },
        }
    for name, value in texts.items():
        files.write_json(temporary / name, value)
    records = [record for share in written for record in share.records]
    records += [FileRecord.of(temporary / name) for name in texts]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "files": [record.model_dump() for record in records],
    }
    files.write_json(temporary / MANIFEST_NAME, manifest)
    files.replace_folder(temporary, final)
    with files.atomic_write(final.parent.parent / LATEST_NAME) as stream:
        stream.write(f"{final.name}\n".encode())


class NotWrittenError(CheckpointError):
    """A checkpoint could not be written."""


@dataclass(frozen=True)
class _Together:
    """Writes of all ranks to the ``temporary`` folder of a checkpoint of ``num_bytes``."""

    ranks: Ranks
    temporary: Path
    num_bytes: int

    def write(self, words: str, write: Callable[[], Any]) -> list[Any]:
        """Run ``write`` on every rank and return all results.

        Args:
            words: what it does, for the watchdog.

        Raises:
            NotWrittenError: on every rank, if one failed to write; the folder is removed.
            UserError, RankFailure: on every rank, if one failed in another way.
        """
        result, failure, error = None, None, None
        self.ranks.progress.at(words, PATIENCE_AT_SAVE)
        try:
            result = write()
        except (OSError, SafetensorError, MemoryError) as cause:
            what = str(cause) or type(cause).__name__
            failure = f"rank {self.ranks.rank} on {socket.gethostname()}: {what}"
        except Exception as cause:  # the other ranks wait for this one
            error = cause
        self.ranks.progress.at(f"done with {words}", PATIENCE_AT_SAVE)
        self.ranks.raise_together(error)
        results, failures = zip(*self.ranks.gather((result, failure)), strict=True)
        if any(failures):
            if self.ranks.is_first:
                shutil.rmtree(self.temporary, ignore_errors=True)
            raise NotWrittenError(
                "the checkpoint could not be written",
                seen=f"{self.temporary}: {'; '.join(filter(None, failures))}",
                needed=f"a folder to write to, with room for {self.num_bytes:,} bytes",
                change="free space there, or repair the file system",
            )
        return list(results)
