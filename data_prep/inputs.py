"""From INPUT arguments to a list of input files, each with its kind and size.

An INPUT is a file, a folder (all files of known kinds below it), a glob, or ``-`` for JSON lines on
standard input. The list depends on names and sizes alone, in an order that does not depend on the
file system.
"""

from __future__ import annotations

import enum
import glob
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigbird_ds.errors import DataError
from bigbird_ds.log import logger

STDIN = "-"
_COMPRESSIONS = (".gz", ".zst", ".xz")


class Kind(enum.Enum):
    """How documents lie in a file."""

    TEXT = ".txt"  # a document a file
    JSON_LINES = ".jsonl"  # an object a line
    PARQUET = ".parquet"  # a row a document
    SAVED_DATASET = "a saved datasets folder"  # a row a document


@dataclass(frozen=True)
class InputFile:
    """A file of documents, or a saved ``datasets`` folder.

    Attributes:
        path: where it is.
        name: what messages and ``meta.json`` call it: its path below the INPUT that named it.
        kind: how documents lie in it.
        compression: ``.gz``, ``.zst``, ``.xz`` or empty.
        num_bytes: its size.
        modified: nanoseconds since the epoch; tells a changed file of the same size.
    """

    path: Path
    name: str
    kind: Kind
    compression: str
    num_bytes: int
    modified: int

    @property
    def can_be_cut(self) -> bool:
        """Whether documents can be read from its middle."""
        return not self.compression and self.kind is not Kind.TEXT


def find_inputs(arguments: Sequence[str]) -> list[InputFile]:
    """The input files that ``arguments`` name, in order; below one argument by name.

    ``-`` is not among them: see ``spool_stdin``.

    Raises:
        DataError: an argument names nothing, a file of unknown kind, or a file named before; or all
            files are empty.
    """
    inputs: list[InputFile] = []
    seen: set[Path] = set()
    for argument in arguments:
        for path, name in _paths_of(argument):
            if path.resolve() in seen:
                raise DataError(
                    "an input is named twice",
                    seen=f"{path}, again through {argument!r}",
                    needed="every document once",
                    change="the INPUT arguments",
                )
            seen.add(path.resolve())
            inputs.append(_input_file(path, name))
    if not any(file.num_bytes for file in inputs):
        raise DataError(
            "the input is empty",
            seen=f"{len(inputs)} files, 0 bytes: {_listing(arguments)}",
            needed="documents",
            change="the INPUT arguments",
        )
    return inputs


def spool_stdin(path: Path) -> InputFile:
    """Copy standard input (JSON lines) to ``path``, so that several workers can read it.

    Raises:
        DataError: there is nothing on standard input.
    """
    with path.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream, 1 << 20)
    if path.stat().st_size == 0:
        path.unlink()
        raise DataError(
            "the input is empty",
            seen="0 bytes on standard input",
            needed="JSON lines",
            change="INPUT, or what is piped in",
        )
    return InputFile(path, STDIN, Kind.JSON_LINES, "", path.stat().st_size, 0)


def _paths_of(argument: str) -> Iterator[tuple[Path, str]]:
    """The paths that one argument names, with their names for messages."""
    path = Path(argument)
    if path.is_dir():
        found, others = ([path], []) if _is_saved_dataset(path) else _below(path)
        if not found:
            raise DataError(
                "a folder holds no documents",
                seen=f"{_counted_by_suffix(others) or 'no file'} below {path}",
                needed=f"{_known_kinds()}",
                change="the INPUT argument",
            )
        if others:
            logger.warning("%s: passed over %s", path, _counted_by_suffix(others))
        base = path.parent if found == [path] else path
        yield from ((each, each.relative_to(base).as_posix()) for each in found)
    elif path.exists():
        yield path, path.name
    else:
        matches = sorted(_matches(argument))
        if not matches:
            raise DataError(
                "an input does not exist",
                seen=f"{argument!r} names nothing",
                needed="a file, a folder, a glob that matches, or -",
                change="the INPUT argument",
            )
        for match in matches:
            yield from _paths_of(match)


def _matches(pattern: str) -> list[str]:
    # glob, not Path.glob: that one takes no absolute pattern
    return glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else []  # noqa: PTH207


def _below(folder: Path) -> tuple[list[Path], list[Path]]:
    """All files of known kinds and saved datasets below ``folder``, and the other files.

    What is hidden is in neither list.
    """
    found: list[Path] = []
    others: list[Path] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        for name in list(folders):
            if name.startswith("."):
                folders.remove(name)
            elif _is_saved_dataset(Path(root, name)):
                folders.remove(name)
                found.append(Path(root, name))
        for name in names:
            if not name.startswith("."):
                (others if _kind_of(Path(name)) is None else found).append(Path(root, name))
    return sorted(found), others


def _counted_by_suffix(paths: Iterable[Path]) -> str:
    """Files of other kinds in words: ``3 files of other kinds (.md 2, without suffix 1)``."""
    counts = Counter("".join(_endings(path)) or "without suffix" for path in paths)
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = _listing(f"{suffix} {count:,}" for suffix, count in by_count)
    return f"{counts.total():,} files of other kinds ({shown})" if counts else ""


def _is_saved_dataset(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _kind_of(path: Path) -> tuple[Kind, str] | None:
    """Kind and compression by the file's name, or None."""
    suffix, compression = _endings(path)
    kinds = (Kind.TEXT, Kind.JSON_LINES) if compression else tuple(Kind)
    kind = next((kind for kind in kinds if suffix == kind.value), None)
    return kind and (kind, compression)


def _endings(path: Path) -> tuple[str, str]:
    """A file's suffix and its compression in small letters, each empty where there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSIONS else ""
    return suffixes[-1] if suffixes else "", compression


def _input_file(path: Path, name: str) -> InputFile:
    if path.is_dir():
        return _saved_dataset(path, name)
    known = _kind_of(path)
    if known is None:
        raise DataError(
            "an input is of no known kind",
            seen=str(path),
            needed=_known_kinds(),
            change="the file's name, or the INPUT argument",
        )
    try:
        status = path.stat()
        path.open("rb").close()
    except OSError as cause:
        raise DataError(
            "an input cannot be read",
            seen=f"{path}: {cause.strerror}",
            needed="a file that can be read",
            change="the file's permissions, or the INPUT argument",
        ) from cause
    return InputFile(path, name, *known, status.st_size, status.st_mtime_ns)


def _saved_dataset(path: Path, name: str) -> InputFile:
    split_list = path / "dataset_dict.json"
    if split_list.is_file():
        splits = json.loads(split_list.read_bytes()).get("splits", [])
        raise DataError(
            "a saved datasets folder holds several splits",
            seen=f"{path} with {', '.join(splits)}",
            needed="one split a time",
            change=f"INPUT: for instance {path / splits[0] if splits else path}",
        )
    files = sorted(path.glob("*.arrow"))
    status = [file.stat() for file in files]
    return InputFile(
        path,
        name,
        Kind.SAVED_DATASET,
        "",
        sum(each.st_size for each in status),
        max((each.st_mtime_ns for each in status), default=0),
    )


def _known_kinds() -> str:
    return ".txt or .jsonl (also with .gz, .zst, .xz), .parquet, or a saved datasets folder"


def _listing(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:5]) + (" ..." if len(shown) > 5 else "")
