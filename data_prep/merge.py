"""Merges shards folders written with one tokenizer into one folder, without copying their files.

The files are hard links where nothing changes. A document whose token ids occur earlier is left
out, and only the shards that hold such documents are written again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigbird_ds import files
from bigbird_ds.data.format import (
    REJECTED_NAME,
    SPLITS,
    FileRecord,
    Manifest,
    ShardRecord,
    shard_file_names,
    shard_stem,
    unit_of,
)
from bigbird_ds.data.samples import read_documents
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import ConfigError, DataError
from bigbird_ds.hub.new_folder import new_folder
from bigbird_ds.log import logger
from bigbird_ds.vocabulary import SPIECE_NAME, Vocabulary
from data_prep.progress import Progress
from data_prep.shard_writer import UnitWriter
from data_prep.text_hashes import HASH_DTYPE, find_duplicates, write_hashes
from data_prep.unit_job import DUPLICATE
from data_prep.unknown_text import merged

_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class _Source:
    """A shard of one of the folders, and its number in the merged one."""

    folder: Path
    split: str
    record: ShardRecord
    number: int


def merge(
    out: Path, folders: Sequence[Path], *, copy: bool = False, keep_duplicates: bool = False
) -> Manifest:
    """Merge shards folders into the new folder ``out``.

    The units of the folders are numbered one after the other. The counts of the manifest are sums;
    those of unknown characters include documents that are left out.

    Args:
        copy: copy the files instead of linking them.
        keep_duplicates: keep documents whose token ids occur earlier.

    Raises:
        ConfigError: ``out`` is not empty, a folder is there twice, or there is only one.
        DataError: a folder is no intact shards folder, the tokenizers differ, or the file system
            has no hard links between the folders.
    """
    manifests = _read_manifests(folders)
    with new_folder(out) as temporary:
        sources = list(_sources(folders, manifests))
        repeats = {} if keep_duplicates else _find_repeats(temporary, sources)
        vocabulary = Vocabulary.from_folder(folders[0])
        splits: dict[str, list[ShardRecord]] = {split: [] for split in SPLITS}
        version = max(manifest.version for manifest in manifests)
        unknown_tokens = sum(manifest.num_unknown_tokens for manifest in manifests)
        for place, source in enumerate(sources):
            record: ShardRecord | None
            if place in repeats:
                record, gone = _write_without(
                    temporary, source, repeats[place], unknown_id=vocabulary.unk, version=version
                )
                unknown_tokens -= gone
            else:
                record = _link(temporary, source, copy)
            if record is not None:
                splits[source.split].append(record)
        _put(folders[0] / SPIECE_NAME, temporary / SPIECE_NAME, copy)
        dropped: Counter[str] = Counter()
        for manifest in manifests:
            dropped.update(manifest.dropped)
        if num_repeats := sum(map(len, repeats.values())):
            dropped[DUPLICATE] += num_repeats
            logger.info("left out: %s documents that repeat an earlier one", f"{num_repeats:,}")
        merged_manifest = Manifest(
            version=version,
            tokenizer=manifests[0].tokenizer,
            options={
                "merged": {
                    f"folder {number}": {"name": folder.resolve().name, **manifest.options}
                    for number, (folder, manifest) in enumerate(
                        zip(folders, manifests, strict=True), start=1
                    )
                }
            },
            splits=splits,
            num_unknown_tokens=unknown_tokens,
            unknown=merged(manifest.unknown for manifest in manifests),
            dropped=dict(sorted(dropped.items())),
            rejected=_write_rejected(temporary, folders, manifests),
        )
        merged_manifest.write(temporary)
    return merged_manifest


def _read_manifests(folders: Sequence[Path]) -> list[Manifest]:
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ConfigError(
            "merge needs two or more different folders",
            seen=" ".join(map(str, folders)),
            needed="each shards folder once",
            change="the command line",
        )
    manifests = [Manifest.read(folder) for folder in folders]
    first = manifests[0].tokenizer
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.tokenizer != first:
            raise DataError(
                "the folders were written with different tokenizers",
                seen=f"{folder}: {manifest.tokenizer.in_words()}",
                needed=f"{first.in_words()}, as in {folders[0]}",
                change="write the shards of one of them again, with the other's tokenizer",
            )
    return manifests


def _sources(folders: Sequence[Path], manifests: Sequence[Manifest]) -> Iterator[_Source]:
    first = 0
    for folder, manifest in zip(folders, manifests, strict=True):
        numbers = [-1]
        for split in SPLITS:
            for record in manifest.splits.get(split, []):
                for file in record.files:
                    file.check_size(folder, DataError, "a file of the shards")
                numbers.append(unit_of(record))
                yield _Source(folder, split, record, first + numbers[-1])
        first += max(numbers) + 1


def _find_repeats(temporary: Path, sources: Sequence[_Source]) -> dict[int, np.ndarray]:
    """Place in ``sources`` -> the rows of its documents whose token ids occur earlier."""
    hashes = temporary / ".hashes"
    hashes.mkdir()
    paths = []
    with Progress("merge", sum(source.record.tar.bytes for source in sources)) as progress:
        done = 0
        for place, (source, table) in enumerate(_hashed(sources)):
            paths.append(hashes / f"{place}.npy")
            write_hashes(paths[-1], table)
            done += source.record.tar.bytes
            progress.update(done)
    repeats = find_duplicates(paths)
    shutil.rmtree(hashes)
    return repeats


def _hashed(sources: Sequence[_Source]) -> Iterator[tuple[_Source, np.ndarray]]:
    """The hashes of the token ids of every document of each source, in HASH_DTYPE."""
    shards: Shards | None = None
    for source in sources:
        if shards is None or (shards.folder, shards.split) != (source.folder, source.split):
            if shards is not None:
                shards.close()
            shards, document = Shards(source.folder, source.split), 0
        lengths = np.load(source.folder / source.record.documents.name)["num_tokens"]
        table = np.zeros(len(lengths), HASH_DTYPE)
        table["row"] = np.arange(len(lengths))
        digests = bytearray()
        for length in lengths.tolist():
            ids = shards.read(document, 0, length)
            digests += hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
            document += 1
        table["high"], table["low"] = np.frombuffer(digests, ">u8").reshape(-1, 2).T
        yield source, table


def _write_without(
    out: Path, source: _Source, rows: np.ndarray, *, unknown_id: int, version: int
) -> tuple[ShardRecord | None, int]:
    """Write a shard without some of its documents; also return the unknown tokens in these."""
    left_out, unknown_tokens = set(rows.tolist()), 0
    path = source.folder / source.record.tar.name
    try:
        with UnitWriter(out, source.number, version) as writer, tarfile.open(path, "r:") as tar:
            for row, document in enumerate(read_documents(tar)):
                if row in left_out:
                    unknown_tokens += int(np.count_nonzero(document.ids == unknown_id))
                    continue
                writer.write(source.split, document.ids, document.sentence_starts, document.meta)
    except (tarfile.TarError, ValueError, EOFError) as cause:
        raise DataError(
            "a shard is damaged",
            seen=f"{path}: {cause}",
            needed="the file as `bigbird-ds shard` wrote it",
            change=f"see `bigbird-ds verify {source.folder} --deep`",
        ) from cause
    return writer.records().get(source.split), unknown_tokens


def _link(out: Path, source: _Source, copy: bool) -> ShardRecord:
    names = shard_file_names(shard_stem(source.split, source.number))
    for file, name in zip(source.record.files, names, strict=True):
        _put(source.folder / file.name, out / name, copy)
    tar, documents, sentences = (
        file.model_copy(update={"name": name})
        for file, name in zip(source.record.files, names, strict=True)
    )
    return source.record.model_copy(
        update={"tar": tar, "documents": documents, "sentences": sentences}
    )


def _put(source: Path, target: Path, copy: bool) -> None:
    """Make ``target`` a hard link to ``source``, or a copy of it."""
    if copy:
        with source.open("rb") as content, files.atomic_write(target) as stream:
            shutil.copyfileobj(content, stream)
        return
    try:
        os.link(source.resolve(), target)
    except OSError as cause:
        if cause.errno not in _NO_LINKS:
            raise
        raise DataError(
            "the file system does not link the shards",
            seen=f"{source}: {cause.strerror}",
            needed="OUT on the file system of the folders, or copies",
            change="OUT or --copy",
        ) from cause


def _write_rejected(
    out: Path, folders: Sequence[Path], manifests: Sequence[Manifest]
) -> FileRecord | None:
    """Write the lists of skipped records as one; None if there is none."""
    lists = [
        folder / REJECTED_NAME
        for folder, manifest in zip(folders, manifests, strict=True)
        if manifest.rejected is not None
    ]
    if not lists:
        return None
    with files.atomic_write(out / REJECTED_NAME) as stream:
        for path in lists:
            with path.open("rb") as content:
                shutil.copyfileobj(content, stream)
    return FileRecord.of(out / REJECTED_NAME)
