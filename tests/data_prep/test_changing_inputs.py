"""An input that changes while the job runs is an error, however bad records are handled."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bigbird_ds.errors import DataError
from data_prep.inputs import find_inputs
from data_prep.readers import read_piece
from data_prep.records import Fields
from data_prep.units import plan_units

LINES = b"".join(json.dumps({"text": f"document {i}"}).encode() + b"\n" for i in range(100))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_at_a_line_end(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:50]))


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b'{"text": "one more"}\n')


def write_over(path: Path) -> None:
    before = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"document 7", b"DOCUMENT 7"))
    os.utime(path, ns=(before + 1, before + 1))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [cut, cut_at_a_line_end, append, write_over, remove])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz"])
@pytest.mark.parametrize("when", ["before", "between"])
def test_a_change_after_the_planning_is_an_error(
    change: Callable[[Path], None], name: str, when: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(LINES) if name.endswith(".gz") else LINES)
    (unit,) = plan_units(find_inputs([str(path)]), 1 << 20)
    records = read_piece(unit.pieces[0], Fields("text"))
    if when == "between":
        next(records)
    change(path)
    with pytest.raises(DataError) as error:
        list(records)
    assert str(path) in str(error.value.seen)
    problems = ("an input changed while the job ran", "an input cannot be read")
    assert error.value.problem in problems


def test_an_unchanged_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    for unit in plan_units(find_inputs([str(path)]), 300):
        for piece in unit.pieces:
            assert list(read_piece(piece, Fields("text")))
