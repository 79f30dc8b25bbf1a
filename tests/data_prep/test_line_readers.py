"""Several documents in a text file: one per line, or separated by blank lines."""

import gzip
from pathlib import Path

import pytest
from support.records import read, texts, write

from data_prep.input_kinds import Kind
from data_prep.inputs import find_inputs
from data_prep.records import BadRecord, Document, Fields

TEXT = b"\n \nOne.\nGoes on.\n\n\n  \nTwo,\r\nwith more.\r\n\r\nThree\n\t\nFour, the last"
LINES = ["One.", "Goes on.", "Two,", "with more.", "Three", "Four, the last"]
BLOCKS = ["One.\nGoes on.", "Two,\r\nwith more.", "Three", "Four, the last"]


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
@pytest.mark.parametrize("unit_bytes", [*range(1, 20), 1 << 20])
@pytest.mark.parametrize(
    ("kind", "expected"), [(Kind.TEXT_LINES, LINES), (Kind.TEXT_BLANK_LINES, BLOCKS)]
)
def test_documents_are_found_once_wherever_units_begin(
    kind: Kind, expected: list[str], unit_bytes: int, suffix: str, tmp_path: Path
) -> None:
    data = gzip.compress(TEXT) if suffix.endswith(".gz") else TEXT
    path = write(tmp_path / f"a{suffix}", data)
    records = read(path, unit_bytes=unit_bytes, text_kind=kind)
    assert texts(records) == expected
    assert sum(record.num_bytes for record in records) <= len(data)


def test_ids_are_places_and_bad_texts_are_named_by_their_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"One.\n\nTwo\n\xff\n\nThree.\n")
    fields = Fields("text", id="id")
    records = read(path, fields, 4, Kind.TEXT_BLANK_LINES)
    assert [r.id for r in records if isinstance(r, Document)] == ["a.txt:0", "a.txt:13"]
    assert [r.place for r in records if isinstance(r, BadRecord)] == ["line 3"]


def test_one_document_that_is_most_of_the_input_is_hinted_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.txt", b"word " * (1 << 18))
    find_inputs([str(path)])
    assert "--documents line" in caplog.text
    caplog.clear()
    find_inputs([str(path)], text_kind=Kind.TEXT_LINES)
    assert not caplog.text
