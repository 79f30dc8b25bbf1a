"""The shard job: plans units, runs them in workers, and writes the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_ds import files
from bigbird_ds.data.format import (
    MANIFEST_NAME,
    SPLITS,
    TRAIN,
    UNFINISHED_NAME,
    VALIDATION,
    VERSION,
    Manifest,
    TokenizerRecord,
)
from bigbird_ds.errors import ConfigError, DataError
from bigbird_ds.log import logger
from bigbird_ds.vocabulary import SPIECE_NAME, Vocabulary
from data_prep.duplicates import duplicates_of, without, write_duplicates
from data_prep.fasta import check_sequence_options
from data_prep.filters import filter_by
from data_prep.input_kinds import Kind
from data_prep.inputs import STDIN, InputFile, find_inputs, spool_stdin
from data_prep.job_folder import (
    JobFolder,
    JobPlan,
    content_digest,
    describe_inputs,
    missing_in_words,
)
from data_prep.job_lock import JobLock
from data_prep.progress import Progress
from data_prep.repair import (
    damaged_units,
    put_in_place,
    require_same,
    rewritten_folder,
)
from data_prep.sentence_choice import spans_by
from data_prep.text_hashes import find_duplicates
from data_prep.unit_job import DocumentOptions, UnitRecord, hashes_path
from data_prep.units import Unit, plan_units
from data_prep.unknown_text import merged, warning_at_the_end
from data_prep.worker_pool import WorkerSetup, run_units


@dataclass(frozen=True)
class ShardOptions:
    """Options of a shard job.

    Attributes:
        documents: how records become documents.
        unit_bytes: bytes of input per unit (one shard per split).
        workers: number of processes; does not affect the output.
        part: (I, N), process every N-th unit from the I-th, I from 1; None: all units.
        resume: resume an interrupted job.
        default_kind: the kind of inputs without a known suffix.
        text_kind: the document format of text files.
    """

    documents: DocumentOptions = field(default_factory=DocumentOptions)
    unit_bytes: int = 64 << 20
    workers: int = 1
    part: tuple[int, int] | None = None
    resume: bool = False
    default_kind: Kind | None = None
    text_kind: Kind = Kind.TEXT

    def recorded(self, inputs: Sequence[InputFile]) -> dict[str, Any]:
        """The options that affect the output, as recorded in the manifest."""
        return {
            "inputs": describe_inputs(inputs),
            "format": None if self.default_kind is None else self.default_kind.value,
            "documents": self.text_kind.value,
            "encoding_errors": self.documents.fields.encoding_errors,
            **self._recorded_of_sequences(inputs),
            "text_field": self.documents.fields.text,
            "id_field": self.documents.fields.id,
            "sentences": self.documents.sentences,
            "filter": self.documents.filter,
            "duplicates": "keep" if self.documents.keep_duplicates else "drop",
            "min_tokens": self.documents.min_tokens,
            "max_unknown": self.documents.max_unknown,
            "validation_fraction": self.documents.validation_fraction,
            "unit_bytes": self.unit_bytes,
        }

    def _recorded_of_sequences(self, inputs: Sequence[InputFile]) -> dict[str, Any]:
        """Options of FASTA files, recorded only where there are such files."""
        if not any(file.kind is Kind.FASTA for file in inputs):
            return {}
        fields = self.documents.fields
        return {"upper_case": fields.upper_case, "cut_gaps": fields.cut_gaps}


def write_shards(
    arguments: Sequence[str], tokenizer: Path, out: Path, options: ShardOptions
) -> Manifest | None:
    """Write the documents of the INPUT ``arguments`` as shards to ``out``.

    Returns:
        The manifest, or None if units of other parts are not finished yet.

    Raises:
        ConfigError: inconsistent options.
        DataError: unusable inputs, tokenizer or output. Finished units are kept, so that the job
            can resume.
    """
    vocabulary = Vocabulary.from_folder(tokenizer)
    spans_by(options.documents.sentences)  # fail early
    filter_by(options.documents.filter)
    if STDIN not in arguments:
        inputs = find_inputs(arguments, options.default_kind, options.text_kind)
        check_sequence_options(options.documents.fields, inputs)
        return _Job(inputs, tokenizer, vocabulary, out, options).run()
    if len(arguments) > 1 or options.part or options.resume:
        raise ConfigError(
            "standard input cannot be combined with other inputs, --part or --resume",
            seen="- with other inputs, --part or --resume",
            needed="only -",
            change="INPUT",
        )
    files.make_folder(out.parent, DataError, "--out")
    spool = files.temporary_name(out.with_name(f"{out.name}.stdin.jsonl"))
    try:
        with files.report_full_disk(out.parent, DataError, "--out"):
            spooled = spool_stdin(spool)
            check_sequence_options(options.documents.fields, [spooled])
        return _Job([spooled], tokenizer, vocabulary, out, options).run()
    finally:
        spool.unlink(missing_ok=True)


class _Job:
    def __init__(
        self,
        inputs: list[InputFile],
        tokenizer: Path,
        vocabulary: Vocabulary,
        out: Path,
        options: ShardOptions,
    ) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._out, self._options = out, options
        self._folder = JobFolder(out)
        self._units = plan_units(inputs, options.unit_bytes)
        first, step = (options.part[0] - 1, options.part[1]) if options.part else (0, 1)
        self._own_units = self._units[first::step]
        self._recorded = options.recorded(inputs)
        self._plan = JobPlan(
            options=self._recorded,
            tokenizer=vocabulary.sha256,
            content=content_digest(inputs),
            num_units=len(self._units),
            num_parts=step,
            version=VERSION,
        )

    def run(self) -> Manifest | None:
        options = self._options
        own_numbers = [unit.number for unit in self._own_units]
        manifest = self._folder.begin(
            self._plan, own_numbers, resume=options.resume, part=options.part
        )
        try:
            with files.report_full_disk(self._out, DataError, "--out"):
                if manifest is not None:
                    self._repair(manifest)
                    return manifest
                self._run_units([u for u in self._own_units if not self._is_finished(u)])
                return self._compose()
        except BaseException:
            self._folder.remove_leftovers(own_numbers)
            if options.part is None and manifest is None:
                self._folder.remove_if_nothing_is_finished()
            raise
        finally:
            self._folder.end()

    def _repair(self, manifest: Manifest) -> None:
        """Rewrite damaged and missing files of a complete folder."""
        logger.info("%s is already complete; checking its files", self._out)
        own = {unit.number: unit for unit in self._own_units}
        units = [own[number] for number in sorted(damaged_units(self._out, manifest, own))]
        if units:
            logger.warning("rewriting %d damaged or missing units", len(units))
            first, step = self._options.part or (1, 1)
            with rewritten_folder(self._out, f"{first}-{step}") as folder:
                self._run_units(units, folder)
                records = [self._rewritten(folder, unit.number) for unit in units]
                for unit, record in zip(units, records, strict=True):
                    require_same(record, unit.number, manifest)
                put_in_place(folder, self._out, records)
        self._write_tokenizer()
        self._folder.remove()

    def _rewritten(self, folder: Path, number: int) -> UnitRecord | None:
        record = JobFolder(folder).finished(number)
        rows = duplicates_of(self._out, number)
        return record if record is None or not len(rows) else self._without(record, rows, folder)

    def _is_finished(self, unit: Unit) -> bool:
        return self._options.resume and self._folder.finished(unit.number) is not None

    def _run_units(self, units: list[Unit], out: Path | None = None) -> None:
        if not units:
            return
        skipped = len(self._own_units) - len(units)
        logger.info(
            "%d units, %.1f MB of input%s, %d workers",
            len(units),
            sum(unit.num_bytes for unit in units) / 1e6,
            f" ({skipped} more are finished)" if skipped else "",
            self._options.workers,
        )
        setup = WorkerSetup(
            self._tokenizer, out or self._out, self._options.documents, self._folder.version
        )
        workers = min(self._options.workers, len(units))
        with Progress("shards", sum(unit.num_bytes for unit in units)) as progress:
            summary = run_units(units, setup, workers, progress)
        logger.info("done: %s", summary)

    def _compose(self) -> Manifest | None:
        """Write the manifest if every unit of every part is finished."""
        is_missing = self._folder.missing(len(self._units))
        if is_missing and not (self._out / MANIFEST_NAME).is_file():
            self._report_missing()
            return None
        end = JobLock(self._out / UNFINISHED_NAME, None)
        try:
            end.acquire()
        except (DataError, FileNotFoundError):
            logger.info("another part writes the manifest")
            return None
        try:
            if (self._out / MANIFEST_NAME).is_file():
                return Manifest.read(self._out)
            records = self._folder.records(len(self._units))
            if not self._options.documents.keep_duplicates and not self._drop_duplicates(records):
                self._report_missing()
                return None
            return self._write_manifest(records)
        finally:
            end.release()

    def _write_manifest(self, records: list[UnitRecord]) -> Manifest:
        manifest = self._manifest(records)
        try:
            self._check(manifest)
        except DataError:
            # The corrected job has other inputs or options, and these units would block it.
            self._folder.remove_with_shards(records)
            raise
        self._write_tokenizer()
        manifest.write(self._out)
        self._folder.remove()
        return manifest

    def _report_missing(self) -> None:
        missing = self._folder.missing(len(self._units))
        logger.info("%s", missing_in_words(missing, self._plan.num_parts))
        logger.info("the last part to finish writes the manifest")

    def _drop_duplicates(self, records: list[UnitRecord]) -> bool:
        """Remove documents that repeat one of an earlier unit, and update ``records``.

        Returns False if a unit is no longer intact because an earlier attempt was killed; the unit
        then counts as missing.
        """
        repeats = find_duplicates([hashes_path(self._out, each.number) for each in records])
        # A unit whose hashes have changed may have been partly processed already.
        suspect = [
            each
            for place, each in enumerate(records)
            if not each.is_intact(self._out, lists_only=place not in repeats)
        ]
        for record in suspect:
            self._folder.forget(record.number)
        if suspect:
            return False
        if repeats:
            count = sum(map(len, repeats.values()))
            logger.info("removing %s duplicates of documents of other units", f"{count:,}")
        for place, rows in repeats.items():
            records[place] = self._without(records[place], rows, self._out)
            self._folder.add(records[place])
        return True

    def _without(self, record: UnitRecord, rows: np.ndarray, out: Path) -> UnitRecord:
        return without(
            out,
            record,
            rows,
            unknown_id=self._vocabulary.unk,
            version=self._folder.version,
        )

    def _write_tokenizer(self) -> None:
        path = self._out / SPIECE_NAME
        if not path.is_file() or files.sha256_of(path) != self._vocabulary.sha256:
            with files.atomic_write(path) as stream:
                stream.write((self._tokenizer / SPIECE_NAME).read_bytes())

    def _manifest(self, records: list[UnitRecord]) -> Manifest:
        dropped: Counter[str] = Counter()
        for record in records:
            dropped.update(record.dropped)
        return Manifest(
            version=self._folder.version,
            tokenizer=TokenizerRecord.of(self._vocabulary),
            options=self._recorded,
            splits={
                split: [record.shards[split] for record in records if split in record.shards]
                for split in SPLITS
            },
            num_unknown_tokens=sum(record.num_unknown_tokens for record in records),
            unknown=merged(record.unknown for record in records),
            dropped=dict(sorted(dropped.items())),
            rejected=self._folder.write_rejected(records),
            duplicates=write_duplicates(self._out, records),
        )

    def _check(self, manifest: Manifest) -> None:
        """Raise DataError if no training documents are left; warn about other suspect results."""
        counts = {split: manifest.total(split, "num_documents") for split in SPLITS}
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in manifest.dropped.items())
        if not counts[TRAIN]:
            raise DataError(
                "no documents left to train on",
                seen=f"{counts[VALIDATION]:,} for validation; dropped: {dropped or 'none'}",
                needed="documents with text",
                change="the inputs, --text-field, --min-tokens, --filter or --validation-fraction",
            )
        for split in SPLITS:
            logger.info(
                "%s: %s documents, %s tokens",
                split,
                f"{counts[split]:,}",
                f"{manifest.total(split, 'num_tokens'):,}",
            )
        if dropped:
            logger.warning("dropped: %s", dropped)
        if self._options.documents.validation_fraction and not counts[VALIDATION]:
            logger.warning("the validation split is empty; --validation-fraction is small")
        num_chars = sum(manifest.total(split, "num_chars") for split in SPLITS)
        if warning := warning_at_the_end(manifest.unknown, sum(counts.values()), num_chars):
            logger.warning("%s", warning)
