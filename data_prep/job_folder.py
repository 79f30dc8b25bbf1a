"""The on-disk state of a shard job, for resuming and for parts on several machines.

``OUT/.units/`` holds ``plan.json`` (the job's inputs, options and tokenizer), a record per finished
unit, the input records that it skipped, and a lock for each running part (see ``job_lock``). It is
removed once the manifest is written: a shards folder is either unfinished or complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bigbird_ds import files
from bigbird_ds.data.format import (
    DUPLICATES_NAME,
    MANIFEST_NAME,
    REJECTED_NAME,
    SPLITS,
    UNFINISHED_NAME,
    VERSION,
    VERSIONS,
    Manifest,
)
from bigbird_ds.errors import DataError
from bigbird_ds.file_records import FileRecord
from data_prep.input_kinds import listing
from data_prep.inputs import InputFile
from data_prep.job_lock import JobLock, owners
from data_prep.remote import RemotePath
from data_prep.unit_job import UnitRecord

REWRITTEN = "rewritten-"  # folders of units that a part repairs
_SAMPLES = 8
_SAMPLE_BYTES = 1 << 15


class JobPlan(BaseModel):
    """The identity of a job. Runs with the same plan write the same bytes; others must not mix.

    Attributes:
        options: the options that affect the output, as in the manifest.
        tokenizer: sha256 of its ``spiece.model``.
        content: a digest of samples of the inputs. It detects files changed in place but ignores
            modification times; it is not in the manifest.
        num_units: number of units of all parts.
        num_parts: number of parts of the first job; later jobs may use another number.
        version: of the shards format, by the first job. Plans of version 1 do not have it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    options: dict[str, Any]
    tokenizer: str
    content: str
    num_units: int
    num_parts: int
    version: int = 1


def describe_inputs(inputs: Iterable[InputFile]) -> dict[str, Any]:
    """Number and bytes of the inputs, and a digest of their names and sizes."""
    inputs = list(inputs)
    digest = _digest(f"{file.name}\0{file.num_bytes}" for file in inputs)
    return {"files": len(inputs), "bytes": sum(i.num_bytes for i in inputs), "sha256": digest}


def content_digest(inputs: Iterable[InputFile]) -> str:
    """A digest of samples of every input: its first and last bytes and some in between."""
    return _digest(_sample_digest(path) for file in inputs for path in file.files())


def _sample_digest(path: Path | RemotePath) -> str:
    size = path.size_and_version()[0] if isinstance(path, RemotePath) else path.stat().st_size
    starts = {max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1) for i in range(_SAMPLES)}
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        for start in sorted(starts):
            stream.seek(start)
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


class JobFolder:
    """``OUT/.units``: the plan, the records of finished units and the lock.

    Attributes:
        version: of the shards format. A folder that was begun by an earlier release is continued
            and repaired in its version, so that all its bytes are those of one job.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folder = out / UNFINISHED_NAME
        self._lock: JobLock | None = None
        self.version = VERSION

    def begin(
        self, plan: JobPlan, own_units: Sequence[int], *, resume: bool, part: tuple[int, int] | None
    ) -> Manifest | None:
        """Lock ``OUT`` for this job until ``end``.

        Returns:
            The manifest if the job is already complete, else None.

        Raises:
            DataError: ``OUT`` holds other files, another job, or finished units although ``resume``
                is False; or another process is working on some of these units.
        """
        is_complete = (self._out / MANIFEST_NAME).is_file()
        if is_complete and not resume:
            raise self._exists("a complete shards folder")
        if not is_complete:
            self._refuse_foreign_files()
        files.make_folder(self._out, DataError, "--out")
        self._lock = JobLock(self._folder, part or (1, 1))
        try:
            self._lock.acquire()
            if (self._out / MANIFEST_NAME).is_file():
                manifest = Manifest.read(self._out)
                self.version = manifest.version
                self._compare(manifest.options, plan.options)
                self._compare(
                    {"tokenizer": manifest.tokenizer.sha256}, {"tokenizer": plan.tokenizer}
                )
                return manifest
            self._start_or_resume(plan, own_units, resume=resume, is_part=part is not None)
        except BaseException:
            self.end()
            raise
        return None

    def _start_or_resume(
        self, plan: JobPlan, own_units: Sequence[int], *, resume: bool, is_part: bool
    ) -> None:
        plan_path = self._folder / "plan.json"
        if plan_path.is_file():
            if not resume and not is_part:
                raise self._exists("an unfinished job")
            there = files.read_json(plan_path, DataError, "the plan of the job")
            there.setdefault("version", 1)
            if there["version"] in VERSIONS:
                self.version = there["version"]
            as_there = {"num_parts": there.get("num_parts"), "version": self.version}
            self._compare(there, plan.model_dump() | as_there)
            if not resume and any(self._path(unit).is_file() for unit in own_units):
                raise self._exists("units of this part")
        self.remove_leftovers(own_units)
        if not plan_path.is_file():
            files.write_json(plan_path, plan.model_dump())

    def _refuse_foreign_files(self) -> None:
        """Raise DataError if ``OUT`` has files but no job, except leftovers of killed workers."""
        if (self._folder / "plan.json").is_file() or not self._out.is_dir():
            return
        foreign = [e for e in self._out.iterdir() if e != self._folder and not _is_leftover(e)]
        if foreign:
            raise self._exists(f"{len(foreign)} entries")

    def end(self) -> None:
        """Release the lock; remove the folders if empty."""
        if self._lock is not None:
            self._lock.release()
        for folder in (self._folder, self._out):
            with contextlib.suppress(OSError):  # not empty, or another part has removed it
                folder.rmdir()

    def add(self, record: UnitRecord) -> None:
        """Record a finished unit; its files must be in place."""
        files.write_json(self._path(record.number), record.model_dump())

    def forget(self, unit: int) -> None:
        """Mark a unit as not finished."""
        self._path(unit).unlink(missing_ok=True)

    def finished(self, unit: int) -> UnitRecord | None:
        """The unit's record, or None if it is not finished or its files are not intact."""
        path = self._path(unit)
        if not path.is_file():
            return None
        record = UnitRecord.model_validate(files.read_json(path, DataError, "a unit's record"))
        return record if record.is_intact(self._out) else None

    def records(self, num_units: int) -> list[UnitRecord]:
        """The records of all units; all must be finished."""
        values = (
            files.read_json(self._path(unit), DataError, "a unit's record")
            for unit in range(num_units)
        )
        return [UnitRecord.model_validate(value) for value in values]

    def remove(self) -> None:
        """Remove the job state, but keep the shards, and what other parts work with now."""
        for path in self._folder.glob("*"):
            if path.is_dir():
                if not path.name.startswith(REWRITTEN):
                    shutil.rmtree(path, ignore_errors=True)
            elif not path.name.startswith("lock-"):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def remove_with_shards(self, records: Iterable[UnitRecord]) -> None:
        """Remove the job state and the shards of these finished units."""
        for record in records:
            for shard in record.shards.values():
                for file in shard.files:
                    files.inside(self._out, file.name, DataError).unlink(missing_ok=True)
        for name in (REJECTED_NAME, DUPLICATES_NAME):
            (self._out / name).unlink(missing_ok=True)
        self.remove()

    def remove_if_nothing_is_finished(self) -> None:
        """After a failure: remove the job state if no unit is finished."""
        if not any(self._folder.glob("[0-9]*.json")):
            self.remove()

    def remove_leftovers(self, units: Iterable[int]) -> None:
        """Remove temporary files of killed workers for these units."""
        numbers = {f"{unit:05d}" for unit in units}
        for path in [*self._out.glob(".*.tmp"), *self._folder.glob(".*.tmp")]:
            if _unit_of_leftover(path) in numbers:
                path.unlink(missing_ok=True)

    def missing(self, num_units: int) -> list[int]:
        """Units that are not finished."""
        return [unit for unit in range(num_units) if not self._path(unit).is_file()]

    def write_rejected(self, manifest_records: Iterable[UnitRecord]) -> FileRecord | None:
        """Write ``OUT/rejected.jsonl`` with all skipped records; None if there are none."""
        parts = [record.rejected for record in manifest_records if record.rejected is not None]
        if not parts:
            return None
        path = self._out / REJECTED_NAME
        with files.atomic_write(path) as stream:
            for part in parts:
                stream.write(files.inside(self._folder, part.name, DataError).read_bytes())
        return FileRecord.of(path)

    def _path(self, unit: int) -> Path:
        return self._folder / f"{unit:05d}.json"

    def _exists(self, seen: str) -> DataError:
        return DataError(
            "the output folder is not empty",
            seen=f"{self._out} with {seen}",
            needed="a new or empty folder, or --resume to resume the same job",
            change="--out, or --resume",
        )

    def _compare(self, there: Any, wanted: Any) -> None:
        """Raise DataError, naming the difference, if the jobs differ."""
        there = _flat(there)
        wanted = _flat(wanted.model_dump() if isinstance(wanted, BaseModel) else wanted)
        for name in [*wanted, *(there.keys() - wanted.keys())]:
            if there.get(name) != wanted.get(name):
                differs = f"{name} {there.get(name)} in {self._out}, {wanted.get(name)} now"
                raise DataError(
                    "the output folder is of a job with different inputs, options or tokenizer",
                    seen="an input changed since the job began" if name == "content" else differs,
                    needed="the same inputs, options and tokenizer as before",
                    change="the options, or --out for a new job",
                )


def describe_unfinished(out: Path) -> str:
    """Describe the finished and missing units of an unfinished shards folder.

    Raises:
        DataError: its plan is damaged.
    """
    folder = JobFolder(out)
    value = files.read_json(out / UNFINISHED_NAME / "plan.json", DataError, "the plan of the job")
    try:
        plan = JobPlan.model_validate(value)
    except ValidationError as cause:
        raise DataError(
            "the plan of a shard job is damaged",
            seen=f"{out / UNFINISHED_NAME / 'plan.json'}: {cause.errors()[0]['msg']}",
            needed="the plan as `bigbird-ds shard` wrote it",
            change="write the shards again to a new folder",
        ) from cause
    missing = folder.missing(plan.num_units)
    lines = [
        f"{out}: an unfinished shards folder;"
        f" {plan.num_units - len(missing):,} of {plan.num_units:,} units are done",
        missing_in_words(missing, plan.num_parts),
        *(f"lock: {owner}" for owner in owners(out / UNFINISHED_NAME)),
        "run `bigbird-ds shard` again with --resume, or run the missing parts",
    ]
    return "\n".join(lines)


def missing_in_words(missing: Sequence[int], num_parts: int) -> str:
    """``missing: parts 2, 5 of 8 (units 1, 4, 9 ...)``."""
    if not missing:
        return "missing: only the manifest"
    units = f"units {listing(map(str, missing))}"
    if num_parts == 1:
        return f"missing: {units}"
    parts = sorted({unit % num_parts + 1 for unit in missing})
    return f"missing: parts {', '.join(map(str, parts))} of {num_parts} ({units})"


def _is_leftover(path: Path) -> bool:
    return _unit_of_leftover(path) is not None


def _unit_of_leftover(path: Path) -> str | None:
    """The number of the unit that a temporary file belongs to, or None."""
    match = re.fullmatch(rf"\.(?:(?:{'|'.join(SPLITS)})-)?(\d{{5,}})\..*\.tmp", path.name)
    return match and match[1]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings, joining keys with dots."""
    if not isinstance(value, dict):
        return {prefix.rstrip("."): value}
    return {
        k: v for name, each in value.items() for k, v in _flat(each, f"{prefix}{name}.").items()
    }
