"""The work of one unit: read, encode, split and write documents, and record the result."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bigbird_ds.data.format import (
    MAX_DOCUMENT_TOKENS,
    REJECTED_NAME,
    TRAIN,
    UNFINISHED_NAME,
    VALIDATION,
    VERSION,
    ShardRecord,
    UnknownText,
)
from bigbird_ds.data.sample_meta import DocumentMeta
from bigbird_ds.errors import DataError
from bigbird_ds.file_records import FileRecord
from data_prep.encoding import DocumentEncoder
from data_prep.filters import Drop, filter_by
from data_prep.inputs import InputFile
from data_prep.pieces import Piece, shown
from data_prep.readers import read_piece
from data_prep.records import BadRecord, Document, Fields, NoDocument, printable
from data_prep.rejected import RejectedRecords
from data_prep.sentence_choice import RULE
from data_prep.shard_writer import UnitWriter
from data_prep.text_hashes import UnitHashes, text_hash
from data_prep.units import Unit
from data_prep.unknown_text import UnknownCounts, is_lossy


@dataclass(frozen=True)
class DocumentOptions:
    """How records become documents.

    Attributes:
        fields: the fields of a record with its text and id.
        min_tokens: drop shorter documents; at least 1.
        validation_fraction: fraction of the documents that go to the validation split.
        max_unknown: drop documents with a larger fraction of unknown characters.
        sentences: the sentence rule; see ``sentence_choice.spans_by``.
        filter: a user's function that changes or drops documents; see ``filters.filter_by``.
        keep_duplicates: keep documents whose text occurred before.
        skip_bad_records: drop and count records that are not documents; otherwise they are errors.
    """

    fields: Fields = field(default_factory=lambda: Fields("text"))
    min_tokens: int = 1
    validation_fraction: float = 0.0
    max_unknown: float = 1.0
    sentences: str = RULE
    filter: str | None = None
    keep_duplicates: bool = False
    skip_bad_records: bool = False


class UnitRecord(BaseModel):
    """The result of a unit: its shard per split, lists and counts.

    Attributes:
        rejected: the list of skipped records.
        hashes: the hashes of its documents' texts, if duplicates are dropped.
        duplicates: the documents that were removed after the unit was finished.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    shards: dict[str, ShardRecord]
    num_unknown_tokens: int
    unknown: UnknownText
    dropped: dict[str, int]
    rejected: FileRecord | None
    hashes: FileRecord | None
    duplicates: FileRecord | None = None

    def is_intact(self, folder: Path, *, lists_only: bool = False) -> bool:
        """Whether its files in ``folder`` are unchanged; ``lists_only`` excludes the shards."""
        try:
            for shard in [] if lists_only else self.shards.values():
                for file in shard.files:
                    file.check(folder, DataError, "a file of a finished unit")
            for record in (self.rejected, self.hashes, self.duplicates):
                if record is not None:
                    record.check(folder / UNFINISHED_NAME, DataError, "a unit's list")
        except DataError:
            return False
        return True


DUPLICATE = "duplicate"  # why a document was dropped

# report(input bytes, documents, tokens, lossy documents) since the last call; raises to stop
Report = Callable[[int, int, int, int], None]


class UnitJob:
    """Writes the shards of units to ``out``, one unit at a time.

    Args:
        version: of the shards format.
    """

    def __init__(
        self,
        encoder: DocumentEncoder,
        out: Path,
        options: DocumentOptions,
        report: Report,
        version: int = VERSION,
    ) -> None:
        self._version = version
        self._encoder = encoder
        self._out = out
        self._options = options
        self._report = report
        self._filter = filter_by(options.filter)

    def run(self, unit: Unit) -> UnitRecord:
        """Write the shards of ``unit``.

        Raises:
            DataError: a record is not a document, unless such records are skipped.
        """
        dropped: Counter[str] = Counter()
        counts = _Counts()
        rejected_name = f"{unit.number:05d}.{REJECTED_NAME}"
        rejected = RejectedRecords(self._out / UNFINISHED_NAME / rejected_name)
        with UnitWriter(self._out, unit.number, self._version) as writer, rejected:
            for piece in unit.pieces:
                for record in read_piece(piece, self._options.fields):
                    result = self._filtered(record, piece)
                    if isinstance(result, BadRecord):
                        if not self._options.skip_bad_records:
                            raise result.error()
                        rejected.add(result, piece.file.name)
                        reason: str | None = result.reason
                    elif isinstance(result, Drop):
                        reason = f"filter: {result.reason}"
                    else:
                        reason = self._write(result, piece.file, writer, counts)
                    if reason:
                        dropped[reason] += 1
                    self._report(record.num_bytes, int(isinstance(record, Document)), 0, 0)
        return UnitRecord(
            number=unit.number,
            shards=writer.records(),
            num_unknown_tokens=counts.num_unknown_tokens,
            unknown=counts.unknown.record(),
            dropped=dict(sorted(dropped.items())),
            rejected=rejected.record(),
            hashes=None
            if self._options.keep_duplicates
            else counts.hashes.write(hashes_path(self._out, unit.number)),
        )

    def _filtered(self, record: Document | BadRecord, piece: Piece) -> Document | BadRecord | Drop:
        """Apply the filter; a document for which it fails is a bad record."""
        if isinstance(record, BadRecord):
            return record
        try:
            return self._filter(record, shown(piece.file))
        except NoDocument as cause:
            return cause.at(shown(piece.file), record.place(), record.num_bytes)

    def _write(
        self, document: Document, source: InputFile, writer: UnitWriter, counts: _Counts
    ) -> str | None:
        """Encode, count and write a document. Returns why it was dropped, or None."""
        value = text_hash(document.text)
        if not self._options.keep_duplicates and counts.hashes.has(value):
            return DUPLICATE
        encoded = self._encoder.encode(
            document.text,
            lambda tokens: self._report(0, 0, tokens, 0),
            is_sequence=document.is_sequence,
        )
        self._report(0, 0, 0, int(is_lossy(encoded)))
        if len(encoded.ids) < self._options.min_tokens:
            few = f"fewer than {self._options.min_tokens} tokens"
            return few if len(encoded.ids) else "no text"
        if encoded.unknown_share > self._options.max_unknown:
            return f"more than {100 * self._options.max_unknown:g} % unknown characters"
        if len(encoded.ids) > MAX_DOCUMENT_TOKENS:
            raise _too_long(document, source, len(encoded.ids))
        counts.unknown.add(encoded)
        counts.num_unknown_tokens += encoded.num_unknown
        identity = document.id if document.id is not None else content_id(document.text)
        split = split_of(value, self._options.validation_fraction)
        meta = DocumentMeta(len(document.text), identity, source.name)
        writer.write(split, encoded.ids, encoded.sentence_starts, meta)
        if not self._options.keep_duplicates:
            counts.hashes.add(value, encoded)
        return None


@dataclass
class _Counts:
    """Counts over the documents that a unit wrote."""

    num_unknown_tokens: int = 0
    unknown: UnknownCounts = field(default_factory=UnknownCounts)
    hashes: UnitHashes = field(default_factory=UnitHashes)


def _too_long(document: Document, source: InputFile, num_tokens: int) -> DataError:
    return DataError(
        "a document has more tokens than a shard index supports",
        seen=f"{num_tokens:,} tokens in a document of {printable(source.path)}"
        + (f" with the id {document.id!r}" if document.id else ""),
        needed=f"at most {MAX_DOCUMENT_TOKENS:,}",
        change="the document: split it",
    )


def hashes_path(out: Path, number: int) -> Path:
    """The file with the hashes of a unit's documents."""
    return out / UNFINISHED_NAME / f"{number:05d}.hashes.npy"


def content_id(text: str) -> str:
    """The id of a document without one in the input: a hash of its text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def split_of(value: bytes, validation_fraction: float) -> str:
    """The split of a document, determined only by the hash of its text.

    So adding or removing other documents does not change it, and no text is in both splits.
    """
    digest = hashlib.blake2b(value, digest_size=8, key=b"bigbird_ds split").digest()
    place = int.from_bytes(digest, "big") / 2**64
    return VALIDATION if place < validation_fraction else TRAIN
