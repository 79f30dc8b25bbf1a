"""Units are planned only from sizes; together they are the whole input, once, in order."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.inputs import find_inputs
from data_prep.readers import read_piece
from data_prep.records import BadRecord, Document, Fields
from data_prep.units import Unit, plan_units


def texts_of(units: list[Unit]) -> list[str]:
    texts = []
    for unit in units:
        for piece in unit.pieces:
            for record in read_piece(piece, Fields("text")):
                assert isinstance(record, Document)
                texts.append(record.text)
    return texts


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@given(
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=30),
    unit_bytes=st.integers(1, 500),
    last_line_ends=st.booleans(),
)
def test_byte_ranges_hold_every_line_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    unit_bytes: int,
    last_line_ends: bool,
) -> None:
    texts = [f"{index}:" + "x" * length for index, length in enumerate(lengths)]
    path = write_lines(tmp_path_factory.mktemp("lines") / "a.jsonl", texts)
    if not last_line_ends:
        path.write_bytes(path.read_bytes().rstrip(b"\n"))
    units = plan_units(find_inputs([str(path)]), unit_bytes)
    assert texts_of(units) == texts
    assert sum(unit.num_bytes for unit in units) == path.stat().st_size
    assert [unit.number for unit in units] == list(range(len(units)))


def test_a_line_over_many_ranges_is_read_by_the_one_where_it_begins(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["short", "x" * 10_000, "last"])
    units = plan_units(find_inputs([str(path)]), 500)
    assert [len(texts_of([unit])) for unit in units].count(0) >= 18
    assert texts_of(units) == ["short", "x" * 10_000, "last"]


def test_small_files_share_a_unit_and_large_ones_that_cannot_be_cut_have_one(
    tmp_path: Path,
) -> None:
    for index in range(10):
        (tmp_path / f"{index}.txt").write_text("x" * 100)
    (tmp_path / "big.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n', mtime=0) * 200)
    units = plan_units(find_inputs([str(tmp_path)]), 400)
    assert [len(unit.pieces) for unit in units] == [4, 4, 2, 1]
    assert texts_of(units) == ["x" * 100] * 10 + ["a"] * 200


def test_parquet_is_cut_at_row_groups(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = [f"document {index} " + "x" * 300 for index in range(40)]
    table = pyarrow.table({"id": list(range(40)), "text": texts})
    pyarrow.parquet.write_table(
        table, tmp_path / "a.parquet", row_group_size=4, compression="none", use_dictionary=False
    )
    units = plan_units(find_inputs([str(tmp_path / "a.parquet")]), 3000)
    assert len(units) > 3
    assert texts_of(units) == texts
    whole = plan_units(find_inputs([str(tmp_path / "a.parquet")]), 1 << 30)
    assert len(whole) == 1
    assert texts_of(whole) == texts


def test_a_saved_dataset_is_cut_by_rows_and_keeps_its_selection(tmp_path: Path) -> None:
    import datasets

    texts = [f"document {index} " + "x" * 300 for index in range(50)]
    rows = datasets.Dataset.from_dict({"text": texts, "other": list(range(50))})
    rows.select(range(49, 9, -1)).save_to_disk(str(tmp_path / "saved"))
    units = plan_units(find_inputs([str(tmp_path / "saved")]), 3000)
    assert len(units) > 3
    assert texts_of(units) == texts[49:9:-1]


def test_input_bytes_add_up_to_the_files_sizes(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    write_lines(tmp_path / "a.jsonl", ["one", "two"] * 50)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"] * 33}), tmp_path / "c.parquet")
    files = find_inputs([str(tmp_path)])
    for unit in plan_units(files, 1 << 20):
        for piece in unit.pieces:
            records: list[Document | BadRecord] = list(read_piece(piece, Fields("text")))
            assert sum(record.num_bytes for record in records) == piece.num_bytes
