from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support.records import only_bad, read, texts, write

from bigbird_ds.errors import DataError
from data_prep.records import Fields

TEXTS = ["a", "b", "c"]


def test_a_row_without_text_is_named_by_its_number(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a", "b", "c", None, "e"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    records = read(tmp_path / "a.parquet", unit_bytes=1)
    assert only_bad(records).where == f"{tmp_path / 'a.parquet'}, row 4"
    assert texts(records) == ["a", "b", "c", "e"]


def test_a_table_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'text'") as error:
        read(tmp_path / "a.parquet")
    assert error.value.seen == "columns body, n"


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read") as error:
        read(write(tmp_path / "a.parquet", b"PAR1 no parquet at all"))
    assert "a.parquet" in str(error.value.seen)


def strings(values: list[bytes]) -> pyarrow.Array:
    """A column of strings with arbitrary bytes."""
    buffers = pyarrow.array(values, pyarrow.binary()).buffers()
    return pyarrow.Array.from_buffers(pyarrow.string(), len(values), buffers)


def test_a_string_that_is_no_utf8_is_a_bad_row_and_the_others_are_read(tmp_path: Path) -> None:
    table = pyarrow.table({"text": strings([b"one", b"\xff", b"three"])})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    records = read(tmp_path / "a.parquet")
    assert texts(records) == ["one", "three"]
    bad = only_bad(records)
    assert (bad.reason, bad.place) == ("not UTF-8", "row 2")
    replaced = read(tmp_path / "a.parquet", Fields("text", encoding_errors="replace"))
    assert texts(replaced) == ["one", "\N{REPLACEMENT CHARACTER}", "three"]


def test_binary_and_list_columns_and_names_with_dots_are_read(tmp_path: Path) -> None:
    columns = {
        "bytes": pyarrow.array([text.encode() for text in TEXTS], pyarrow.binary()),
        "parts": pyarrow.array([[text, text] for text in TEXTS]),
        "doc.text": pyarrow.array(TEXTS),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    for field, expected in (
        ("bytes", TEXTS),
        ("parts", [f"{text}\n\n{text}" for text in TEXTS]),
        ("doc.text", TEXTS),
    ):
        assert texts(read(tmp_path / "a.parquet", Fields(field))) == expected


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    column = pyarrow.array(TEXTS)
    table = pyarrow.Table.from_arrays([column, column], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="several columns 'text'"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("new_writer", [pyarrow.ipc.new_stream, pyarrow.ipc.new_file])
def test_arrow_files_are_read(new_writer: Any, tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"row {i}" for i in range(50)]})
    with new_writer(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    records = read(tmp_path / "a.arrow")
    assert texts(records) == [f"row {i}" for i in range(50)]
    assert sum(r.num_bytes for r in records) <= (tmp_path / "a.arrow").stat().st_size


def test_an_arrow_file_that_is_cut_is_damaged(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"row {i}" for i in range(50)]})
    with pyarrow.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    data = (tmp_path / "a.arrow").read_bytes()
    write(tmp_path / "b.arrow", data[: len(data) // 2])
    assert only_bad(read(tmp_path / "b.arrow")).reason == "the file is damaged"
