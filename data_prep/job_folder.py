"""The state of a shard job on disk: it can be resumed, and done in parts on several machines.

``OUT/.units/`` holds ``plan.json`` (what the job is: inputs, options, tokenizer) and a record per
finished unit. It goes when the manifest has been written: a shards folder is either in work or
complete.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bigbird_ds import files
from bigbird_ds.data.format import (
    MANIFEST_NAME,
    SPLITS,
    UNFINISHED_NAME,
    Manifest,
    shard_stem,
)
from bigbird_ds.errors import DataError
from data_prep.inputs import InputFile
from data_prep.unit_job import UnitRecord


class JobPlan(BaseModel):
    """What a job is. Two runs with the same plan write the same bytes; others must not be mixed.

    ``modified`` covers the inputs' modification times. It tells a file changed in place, and stays
    out of the manifest, which is the same wherever the inputs lie.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    options: dict[str, Any]
    tokenizer: str
    modified: str


def describe_inputs(inputs: Iterable[InputFile]) -> dict[str, Any]:
    """Number, bytes and a digest of the names and sizes of the inputs."""
    inputs = list(inputs)
    digest = _digest(f"{file.name}\0{file.num_bytes}" for file in inputs)
    return {"files": len(inputs), "bytes": sum(i.num_bytes for i in inputs), "sha256": digest}


def modification_digest(inputs: Iterable[InputFile]) -> str:
    """A digest of the inputs' modification times."""
    return _digest(str(file.modified) for file in inputs)


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


class JobFolder:
    """``OUT/.units``: the plan and the records of finished units."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folder = out / UNFINISHED_NAME

    def begin(self, plan: JobPlan, own_units: Sequence[int], *, resume: bool, part: bool) -> bool:
        """Claim ``OUT`` for this job. Returns False where the job is complete already.

        Raises:
            DataError: ``OUT`` holds something else, another job, or units of ours without
            ``resume``.
        """
        if (self._out / MANIFEST_NAME).is_file():
            manifest = Manifest.read(self._out)
            if not resume:
                raise self._exists("a complete shards folder")
            self._compare(manifest.options, plan.options)
            self._compare({"tokenizer": manifest.tokenizer.sha256}, {"tokenizer": plan.tokenizer})
            self.remove()  # a job killed between the manifest and its own end
            return False
        plan_path = self._folder / "plan.json"
        if plan_path.is_file():
            if not resume and not part:
                raise self._exists("an unfinished job")
            self._compare(files.read_json(plan_path, DataError, "the plan of the job"), plan)
            if not resume and any(self._path(unit).is_file() for unit in own_units):
                raise self._exists("units of this part")
        elif self._out.is_dir() and any(each != self._folder for each in self._out.iterdir()):
            raise self._exists(f"{sum(1 for _ in self._out.iterdir())} entries")
        files.make_folder(self._out, DataError, "--out")
        self._folder.mkdir(exist_ok=True)
        self._remove_leftovers(own_units)
        if not plan_path.is_file():
            files.write_json(plan_path, plan.model_dump())
        return True

    def add(self, record: UnitRecord) -> None:
        """Note a finished unit; its files must be in place."""
        files.write_json(self._path(record.number), record.model_dump())

    def finished(self, unit: int) -> UnitRecord | None:
        """The unit's record, or None where it is not finished or its files are not intact."""
        path = self._path(unit)
        if not path.is_file():
            return None
        record = UnitRecord.model_validate(files.read_json(path, DataError, "a unit's record"))
        return record if record.is_intact(self._out) else None

    def records(self, num_units: int) -> list[UnitRecord] | None:
        """The records of all units, or None while some are missing."""
        paths = [self._path(unit) for unit in range(num_units)]
        if not all(path.is_file() for path in paths):
            return None
        return [
            UnitRecord.model_validate(files.read_json(path, DataError, "a unit's record"))
            for path in paths
        ]

    def remove(self) -> None:
        """Remove the state; the shards stay."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def remove_with_shards(self, records: Iterable[UnitRecord]) -> None:
        """Leave no trace of a job with these finished units."""
        for record in records:
            for shard in record.shards.values():
                for file in shard.files:
                    files.inside(self._out, file.name, DataError).unlink(missing_ok=True)
        self.remove()
        if self._out.is_dir() and not any(self._out.iterdir()):
            self._out.rmdir()

    def remove_if_nothing_is_finished(self) -> None:
        """After a failure: leave no trace of a job that has not finished a unit."""
        if not any(self._folder.glob("[0-9]*.json")):
            self.remove_with_shards([])

    def _path(self, unit: int) -> Path:
        return self._folder / f"{unit:05d}.json"

    def _remove_leftovers(self, units: Iterable[int]) -> None:
        """Remove temporary files that a killed worker left behind."""
        stems = {shard_stem(split, unit) for split in SPLITS for unit in units}
        for path in self._out.glob(".*.tmp"):
            if path.name.lstrip(".").split(".")[0] in stems:
                path.unlink()

    def _exists(self, seen: str) -> DataError:
        return DataError(
            "the output exists",
            seen=f"{self._out} with {seen}",
            needed="a new or empty folder, or --resume to go on with the same job",
            change="--out, or --resume",
        )

    def _compare(self, there: Any, wanted: Any) -> None:
        """Refuse to mix two jobs; name what differs."""
        there = _flat(there)
        wanted = _flat(wanted.model_dump() if isinstance(wanted, BaseModel) else wanted)
        for name in [*wanted, *(there.keys() - wanted.keys())]:
            if there.get(name) != wanted.get(name):
                differs = f"{name} {there.get(name)} in {self._out}, {wanted.get(name)} now"
                raise DataError(
                    "the output belongs to a job with other inputs, options or tokenizer",
                    seen="an input changed since the job began" if name == "modified" else differs,
                    needed="the same inputs, options and tokenizer, so that nothing is mixed",
                    change="the options, or --out for a new job",
                )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    if not isinstance(value, dict):
        return {prefix.rstrip("."): value}
    return {
        k: v for name, each in value.items() for k, v in _flat(each, f"{prefix}{name}.").items()
    }
