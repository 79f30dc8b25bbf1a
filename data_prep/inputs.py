"""Resolves INPUT arguments to a list of input files with kind and size.

An INPUT is a file, a folder (all files of known kinds below it), a glob, a URL of one of these, or
``-`` for JSON lines on standard input. The list depends only on names and sizes; its order does not
depend on the file system.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigbird_ds import files
from bigbird_ds.errors import DataError
from bigbird_ds.log import logger
from data_prep.input_kinds import (
    KNOWN_KINDS,
    Kind,
    counted_by_suffix,
    kind_of,
    kind_of_json,
    listing,
)
from data_prep.input_walk import Identity, identity_of, is_saved_dataset, walk
from data_prep.records import printable
from data_prep.remote import RemotePath, find_remote, is_remote

STDIN = "-"
_LARGE_DOCUMENT_BYTES = 1 << 20


@dataclass(frozen=True)
class InputFile:
    """A file of documents, or a saved ``datasets`` folder.

    Attributes:
        path: its location.
        name: its name in messages and ``meta.json``: its path relative to the INPUT argument.
        kind: its document format.
        compression: ``.gz``, ``.zst``, ``.xz``, ``.bz2`` or empty.
        num_bytes: its size.
        modified: nanoseconds since the epoch (of a URL: a number made from its version), to detect
            changes during the job; None for a pipe, which has no size either.
    """

    path: Path | RemotePath
    name: str
    kind: Kind
    compression: str
    num_bytes: int
    modified: int | None

    @property
    def can_be_cut(self) -> bool:
        """Whether reading can start in the middle of the file."""
        whole = (Kind.TEXT, Kind.JSON_VALUES, Kind.ARROW, Kind.FASTA)
        return not self.compression and self.kind not in whole

    def _size_and_time_now(self) -> tuple[int, int]:
        if isinstance(self.path, RemotePath):
            return self.path.size_and_version(is_fresh=True)
        return _size_and_time(self._local_files(self.path))

    def files(self) -> Sequence[Path | RemotePath]:
        """The files that it consists of."""
        return [self.path] if isinstance(self.path, RemotePath) else self._local_files(self.path)

    def _local_files(self, path: Path) -> list[Path]:
        return sorted(path.glob("*.arrow")) if self.kind is Kind.SAVED_DATASET else [path]

    def check_unchanged(self) -> None:
        """Raise DataError if the file has changed since the job was planned."""
        if self.modified is None:
            return
        try:
            now = self._size_and_time_now()
        except OSError as cause:
            raise cannot_be_read(self.path, cause) from cause
        if now != (self.num_bytes, self.modified):
            raise DataError(
                "an input changed while the job ran",
                seen=f"{printable(self.path)}: {now[0]:,} bytes, {self.num_bytes:,} at the start"
                + ("" if now[0] != self.num_bytes else ", written to since"),
                needed="inputs that do not change until the job has ended",
                change="the inputs; then start again with a new --out",
            )


def find_inputs(
    arguments: Sequence[str], default_kind: Kind | None = None, text_kind: Kind = Kind.TEXT
) -> list[InputFile]:
    """Return the input files of ``arguments``, in order; those of one argument sorted by name.

    A file that is named several times, under any path, is read once, at its first position.
    ``spool_stdin`` handles ``-``.

    Args:
        default_kind: the kind of files without a known suffix; None: they are not inputs.
        text_kind: the document format of text files, one of TEXT_KINDS.

    Raises:
        DataError: an argument matches nothing or a file of unknown kind, a folder cannot be listed,
            or all files are empty.
    """
    inputs: list[InputFile] = []
    seen: set[Identity] = set()
    again = 0
    for argument in arguments:
        for path, name in _paths_of(argument, default_kind):
            if isinstance(path, RemotePath):
                file, identity = _remote_file(path, name, default_kind)
            else:
                file, identity = _input_file(path, name, default_kind)
            if identity in seen:
                again += 1
                continue
            seen.add(identity)
            inputs.append(dataclasses.replace(file, kind=_exact_kind(file, text_kind)))
    if again:
        logger.info(
            "%s paths name files that are already in the input; each file is read once",
            f"{again:,}",
        )
    if not any(file.num_bytes for file in inputs):
        raise DataError(
            "the input is empty",
            seen=f"{len(inputs)} files, 0 bytes: {listing(arguments)}",
            needed="documents",
            change="the INPUT arguments",
        )
    _hint_at_one_large_document(inputs)
    return inputs


def _exact_kind(file: InputFile, text_kind: Kind) -> Kind:
    """The kind of a file whose name does not say it all."""
    if file.kind is Kind.TEXT:
        return text_kind
    if file.kind is not Kind.JSON:
        return file.kind
    try:
        return kind_of_json(file.path, file.compression)
    except OSError as cause:
        raise cannot_be_read(file.path, cause) from cause


def _hint_at_one_large_document(inputs: Sequence[InputFile]) -> None:
    largest = max(inputs, key=lambda file: file.num_bytes)
    is_most = 2 * largest.num_bytes > sum(file.num_bytes for file in inputs)
    if largest.kind is Kind.TEXT and is_most and largest.num_bytes >= _LARGE_DOCUMENT_BYTES:
        logger.warning(
            "%s is one document with most of the input; use --documents line or blank-line if the"
            " file holds several documents",
            printable(largest.path),
        )


def spool_stdin(path: Path) -> InputFile:
    """Copy standard input (JSON lines) to ``path``, so that several workers can read it.

    Raises:
        DataError: standard input is empty.
    """
    with path.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream, 1 << 20)
    num_bytes, modified = _size_and_time([path])
    if num_bytes == 0:
        path.unlink()
        raise DataError(
            "the input is empty",
            seen="0 bytes on standard input",
            needed="JSON lines",
            change="INPUT, or the piped data",
        )
    return InputFile(path, STDIN, Kind.JSON_LINES, "", num_bytes, modified)


def cannot_be_read(path: Path | RemotePath, cause: OSError) -> DataError:
    return DataError(
        "an input cannot be read",
        seen=f"{printable(path)}: {cause.strerror or cause}",
        needed="a readable file or folder",
        change="its permissions, or the INPUT argument",
    )


def _paths_of(argument: str, default_kind: Kind | None) -> Iterator[tuple[Path | RemotePath, str]]:
    """Yield the paths of one argument, with their names for messages."""
    if is_remote(argument):
        yield from _remote_paths(argument, default_kind)
        return
    path = Path(argument)
    try:
        if path.is_dir():
            yield from _paths_in(path, default_kind)
        elif path.exists() or path.is_symlink():
            yield path, path.name
        else:
            yield from _paths_of_glob(argument, default_kind)
    except OSError as cause:
        raise cannot_be_read(Path(cause.filename or path), cause) from cause


def _paths_in(
    folder: Path, default_kind: Kind | None, *, may_be_empty: bool = False
) -> Iterator[tuple[Path, str]]:
    if is_saved_dataset(folder):
        yield folder, folder.name
        return
    found = walk(folder, default_kind)
    if not found.documents and not may_be_empty:
        raise DataError(
            "the folder holds no documents",
            seen=f"{counted_by_suffix(found.others) or 'no file'} below {printable(folder)}",
            needed=KNOWN_KINDS,
            change="the INPUT argument, or --format",
        )
    _report_skipped(folder, found.others)
    if found.num_special:
        logger.warning(
            "%s: skipped %s pipes, sockets or devices", printable(folder), found.num_special
        )
    yield from ((path, path.relative_to(folder).as_posix()) for path in found.documents)


def _paths_of_glob(pattern: str, default_kind: Kind | None) -> Iterator[tuple[Path, str]]:
    # glob, because Path.glob does not support absolute patterns
    found = glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else []  # noqa: PTH207
    matches = [Path(match) for match in sorted(found)]
    known = [m for m in matches if m.is_dir() or kind_of(m, default_kind) is not None]
    if not known:
        raise DataError(
            "an input does not exist",
            seen=f"{printable(pattern)!r} matches {counted_by_suffix(matches) or 'nothing'}",
            needed="a file, a folder, a glob that matches, or -",
            change="the INPUT argument",
        )
    _report_skipped(pattern, sorted(set(matches).difference(known)))
    for match in known:
        if match.is_dir():
            yield from _paths_in(match, default_kind, may_be_empty=True)
        else:
            yield match, match.name


def _remote_paths(url: str, default_kind: Kind | None) -> Iterator[tuple[Path | RemotePath, str]]:
    """Yield the files at a URL; of a folder or glob those of known kinds."""
    try:
        found, is_file = find_remote(url)
    except OSError as cause:
        raise cannot_be_read(RemotePath(url), cause) from cause
    if is_file:
        yield found[0]
        return
    known = [each for each in found if kind_of(each[0], default_kind) is not None]
    if not known:
        raise DataError(
            "an input does not exist",
            seen=f"{printable(url)!r} holds {counted_by_suffix(p for p, _ in found) or 'nothing'}",
            needed="the URL of a file, of a folder with documents, or a glob that matches",
            change="the INPUT argument",
        )
    _report_skipped(url, [path for path, _ in found if kind_of(path, default_kind) is None])
    yield from known


def _remote_file(
    path: RemotePath, name: str, default_kind: Kind | None
) -> tuple[InputFile, Identity]:
    known = kind_of(path, default_kind)
    if known is None:
        raise _unknown_kind(path)
    try:
        size, version = path.size_and_version()
    except OSError as cause:
        raise cannot_be_read(path, cause) from cause
    return InputFile(path, printable(name), *known, size, version), path.identity


def _unknown_kind(path: Path | RemotePath) -> DataError:
    return DataError(
        "unknown file type of an input",
        seen=printable(path),
        needed=KNOWN_KINDS,
        change="the file's name, --format, or the INPUT argument",
    )


def _report_skipped(where: Path | str, others: Sequence[Path | RemotePath]) -> None:
    if others:
        logger.warning("%s: skipped %s", printable(where), counted_by_suffix(others))


def _input_file(path: Path, name: str, default_kind: Kind | None) -> tuple[InputFile, Identity]:
    try:
        identity = identity_of(path)
        if path.is_dir():
            return _saved_dataset(path, printable(name)), identity
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(
                "an input is not a regular file",
                seen=f"{printable(path)}: a pipe, socket or device",
                needed="a regular file; or - for JSON lines on standard input",
                change="the INPUT argument",
            )
        known = kind_of(path, default_kind)
        if known is None:
            raise _unknown_kind(path)
        path.open("rb").close()
        size_and_time = _size_and_time([path])
    except OSError as cause:
        raise cannot_be_read(path, cause) from cause
    return InputFile(path, printable(name), *known, *size_and_time), identity


def _saved_dataset(path: Path, name: str) -> InputFile:
    split_list = path / "dataset_dict.json"
    if split_list.is_file():
        value = files.read_json(split_list, DataError, "the list of a saved dataset's splits")
        splits = value.get("splits") if isinstance(value, dict) else None
        first = splits[0] if isinstance(splits, list) and splits else "SPLIT"
        raise DataError(
            "a saved datasets folder holds several splits",
            seen=f"{printable(path)} with {listing(map(str, splits or ['no split listed']))}",
            needed="one split",
            change=f"INPUT, e.g. {printable(path / str(first))}",
        )
    return InputFile(
        path, name, Kind.SAVED_DATASET, "", *_size_and_time(sorted(path.glob("*.arrow")))
    )


def _size_and_time(paths: Sequence[Path]) -> tuple[int, int]:
    """Total bytes of the files, and the latest modification time."""
    status = [os.stat(path) for path in paths]  # noqa: PTH116 (half the time of Path.stat)
    return sum(s.st_size for s in status), max((s.st_mtime_ns for s in status), default=0)
