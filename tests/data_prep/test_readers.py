import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from bigbird_ds.errors import DataError
from data_prep.inputs import find_inputs
from data_prep.readers import read_piece
from data_prep.records import BadRecord, Document, Fields
from data_prep.units import plan_units

LINES = b"".join(
    json.dumps({"text": f"document {i}", "n": {"id": i}}).encode() + b"\n" for i in range(9)
)
COMPRESS = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def read(
    path: Path, fields: Fields | None = None, unit_bytes: int = 1 << 20
) -> list[Document | BadRecord]:
    units = plan_units(find_inputs([str(path)]), unit_bytes)
    return [
        record
        for unit in units
        for piece in unit.pieces
        for record in read_piece(piece, fields or Fields("text"))
    ]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def only_bad(records: list[Document | BadRecord]) -> BadRecord:
    (bad,) = [record for record in records if isinstance(record, BadRecord)]
    return bad


def texts(records: list[Document | BadRecord]) -> list[str]:
    return [record.text for record in records if isinstance(record, Document)]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_lines_and_texts_are_the_plain_ones(suffix: str, tmp_path: Path) -> None:
    plain = read(write(tmp_path / "a.jsonl", LINES))
    packed = read(write(tmp_path / f"a.jsonl{suffix}", COMPRESS[suffix](LINES)))
    assert texts(packed) == texts(plain) == [f"document {i}" for i in range(9)]
    text = read(write(tmp_path / f"b.txt{suffix}", COMPRESS[suffix]("Größe\n".encode())))
    assert texts(text) == ["Größe\n"]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_several_compressed_parts_one_after_the_other_are_all_read(
    suffix: str, tmp_path: Path
) -> None:
    path = write(tmp_path / f"a.jsonl{suffix}", COMPRESS[suffix](LINES) * 3)
    assert len(texts(read(path))) == 27


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_a_compressed_file_cut_short_is_damaged_and_not_a_short_one(
    suffix: str, keep: float, tmp_path: Path
) -> None:
    data = COMPRESS[suffix](LINES * 1000)
    path = write(tmp_path / f"a.jsonl{suffix}", data[: int(len(data) * keep)])
    bad = only_bad(read(path))
    assert (bad.reason, bad.where) == ("the file is damaged", str(path))


def test_fields_are_found_through_dots(tmp_path: Path) -> None:
    records = read(
        write(tmp_path / "a.jsonl", b'{"a": {"b": "deep"}, "n": {"id": 7}}\n'),
        Fields("a.b", "n.id"),
    )
    assert [(r.text, r.id) for r in records if isinstance(r, Document)] == [("deep", "7")]


@pytest.mark.parametrize(
    ("line", "reason", "seen"),
    [
        (b'{"text": "cut off', "no JSON", "cut off"),
        (b"just words", "no JSON", "just words"),
        (b'{"txt": "a"}', "no field 'text'", "'txt'"),
        (b'["text"]', "no field 'text'", "['text']"),
        (b'{"text": 5}', "field 'text' is no text", "5"),
        (b'{"text": null}', "field 'text' is no text", "None"),
        (b'{"text": "\xff"}', "not UTF-8", "0xff"),
        (b'{"text": "\\ud800"}', "half a surrogate pair in the text", "surrogates"),
        (b"[" * 100_000, "no JSON", "[["),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(
    line: bytes, reason: str, seen: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", LINES + b"\n" + line + b"\n" + LINES)
    records = read(path)
    bad = only_bad(records)
    assert bad.where == f"{path}, line 11"
    assert bad.reason == reason
    assert seen in bad.seen
    assert len(texts(records)) == 18
    assert isinstance(bad.error(), DataError)


@pytest.mark.parametrize("unit_bytes", [50, 97, 200, 1000])
def test_line_numbers_are_right_when_units_begin_in_the_middle(
    unit_bytes: int, tmp_path: Path
) -> None:
    lines = [*LINES.splitlines()] * 5
    for number in (1, 17, 18, 40):
        lines[number - 1] = b"bad"
    path = write(tmp_path / "a.jsonl", b"\n".join(lines))
    where = [r.where for r in read(path, unit_bytes=unit_bytes) if isinstance(r, BadRecord)]
    assert where == [f"{path}, line {number}" for number in (1, 17, 18, 40)]


def test_an_id_that_is_none_is_a_bad_record(tmp_path: Path) -> None:
    lines = b'{"text": "a", "id": null}\n{"text": "b", "id": "\\ud800"}\n{"text": "c", "id": 5}\n'
    records = read(write(tmp_path / "a.jsonl", lines), Fields("text", "id"))
    reasons = [record.reason for record in records if isinstance(record, BadRecord)]
    assert reasons == ["field 'id' is no id", "half a surrogate pair in the text"]
    assert texts(records) == ["c"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    assert texts(read(write(tmp_path / "a.txt", mark + b"text"))) == ["text"]
    assert len(texts(read(write(tmp_path / "a.jsonl", mark + LINES)))) == 9


def test_a_text_file_that_is_not_utf8_is_named_with_the_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Größe".encode("latin-1"))
    bad = only_bad(read(path))
    assert (bad.reason, bad.where) == ("not UTF-8", str(path))
    assert "offset 2" in bad.seen


def test_a_row_without_text_is_named_by_its_number(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ["a", "b", "c", None, "e"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    records = read(tmp_path / "a.parquet", unit_bytes=1)
    assert only_bad(records).where == f"{tmp_path / 'a.parquet'}, row 4"
    assert texts(records) == ["a", "b", "c", "e"]


def test_a_table_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'text'") as error:
        read(tmp_path / "a.parquet")
    assert error.value.seen == "columns body, n"


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read") as error:
        read(write(tmp_path / "a.parquet", b"PAR1 no parquet at all"))
    assert "a.parquet" in str(error.value.seen)
