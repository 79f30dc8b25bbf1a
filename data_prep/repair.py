"""Repairs complete shards folders: finds damaged units, and replaces them by the same bytes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from bigbird_ds import files
from bigbird_ds.data.format import UNFINISHED_NAME, Manifest, ShardRecord, unit_of
from bigbird_ds.errors import DataError
from data_prep.job_folder import REWRITTEN
from data_prep.unit_job import UnitRecord


def damaged_units(out: Path, manifest: Manifest, numbers: Collection[int]) -> set[int]:
    """Return the units among ``numbers`` that have a missing or damaged file.

    Raises:
        DataError: a file composed from all units is missing or damaged.
    """
    for file in (manifest.rejected, manifest.duplicates):
        if file is not None:
            file.check(out, DataError, f"{file.name}, which comes from all units,")
    damaged = set()
    for number, shard in _shards(manifest):
        if number not in numbers:
            continue
        try:
            for file in shard.files:
                file.check(out, DataError, "the file")
        except DataError:
            damaged.add(number)
    return damaged


def require_same(record: UnitRecord | None, number: int, manifest: Manifest) -> None:
    """Raise DataError unless a rewritten unit matches the manifest."""
    wanted = {shard.tar.name: shard for at, shard in _shards(manifest) if at == number}
    found = {} if record is None else {shard.tar.name: shard for shard in record.shards.values()}
    if found != wanted:
        raise DataError(
            "a rewritten unit differs from the damaged one",
            seen=f"unit {number}: {', '.join(sorted(found)) or 'no shard'} with a different sha256",
            needed="the bytes recorded in the manifest",
            change="the original inputs and program version, or a new --out",
        )


@contextlib.contextmanager
def rewritten_folder(out: Path, name: str) -> Iterator[Path]:
    """A folder for rewritten units until they are known to be the same; removed at the end."""
    folder = out / UNFINISHED_NAME / f"{REWRITTEN}{name}"
    shutil.rmtree(folder, ignore_errors=True)  # of a killed job
    (folder / UNFINISHED_NAME).mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, out: Path, records: Iterable[UnitRecord | None]) -> None:
    """Move the shards of rewritten units from ``folder`` to ``out``."""
    for record in records:
        for shard in record.shards.values() if record is not None else ():
            for file in shard.files:
                files.inside(folder, file.name, DataError).replace(out / file.name)
    files.fsync_folder(out)


def _shards(manifest: Manifest) -> Iterator[tuple[int, ShardRecord]]:
    for shards in manifest.splits.values():
        for shard in shards:
            yield unit_of(shard), shard
