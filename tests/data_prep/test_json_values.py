"""``.json`` files that are arrays, or values over several lines."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import pytest
from support.records import only_bad, read, texts, write

from data_prep import json_values
from data_prep.records import Document, Fields

DOCUMENTS = [{"text": f"Größe {i}: \N{GRINNING FACE} [, {{", "id": i} for i in range(5)]
TEXTS = [document["text"] for document in DOCUMENTS]
ARRAY = json.dumps(DOCUMENTS, ensure_ascii=False).encode()
FILES = {
    "one line": ARRAY,
    "indented": json.dumps(DOCUMENTS, indent=2, ensure_ascii=False).encode(),
    "byte order mark and blanks": codecs.BOM_UTF8 + b"\n " + ARRAY + b"\n\n",
    "values over lines": "\n".join(json.dumps(d, indent=1) for d in DOCUMENTS).encode(),
    "lines": "\n".join(map(json.dumps, DOCUMENTS)).encode(),
}


@pytest.mark.parametrize("read_bytes", [1, 7, 1 << 18])
@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_documents_are_the_elements_or_the_values(
    content: bytes, read_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "_READ_BYTES", read_bytes)
    for name, data in (("a.json", content), ("a.json.gz", gzip.compress(content))):
        records = read(write(tmp_path / name, data), Fields("text", "id"))
        assert texts(records) == TEXTS
        assert [r.id for r in records if isinstance(r, Document)] == list("01234")
        assert sum(record.num_bytes for record in records) == len(data)


def test_an_empty_array_has_no_documents_and_an_object_is_one(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.json", b"[ ]\n")) == []
    assert texts(read(write(tmp_path / "b.json", b'{\n "text": "a paper"\n}\n'))) == ["a paper"]


def test_a_bad_element_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    records = read(write(tmp_path / "a.json", b'[{"text": "a"}, {"txt": "b"}, {"text": "c"}]'))
    assert texts(records) == ["a", "c"] and only_bad(records).place == "value 2"
    whole = only_bad(read(write(tmp_path / "b.json", b'{\n"data": [{"text": "a"}]\n}')))
    assert (whole.reason, whole.seen) == ("no field 'text'", "keys 'data'")


@pytest.mark.parametrize(
    ("content", "place", "seen"),
    [
        (ARRAY[:-25], "value 5", "Unterminated string"),
        (ARRAY[:-1], "value 6", "the array has no end"),
        (b'[{"text": "a"} {"text": "b"}]', "value 2", "no , and no ]"),
        (b'[{"text": "a"}] {"text": "b"}', "value 2", "more text after the array"),
        (b'[{"text": "a"}, ]', "value 2", "Expecting value"),
        (b'[{"text": "a"}, {"text": "\xff"}]', "value 1", "byte 0xff"),
        (b'[{"text": "a"}]\xe2\x82', "value 2", "byte 0xe2"),
        (b"[" * 100_000, "value 1", "[["),
    ],
)
def test_what_follows_invalid_json_is_one_bad_record(
    content: bytes, place: str, seen: str, tmp_path: Path
) -> None:
    records = read(write(tmp_path / "a.json", content))
    bad = only_bad(records)
    assert bad.place == place and seen in bad.seen and records[-1] is bad
    assert bad.reason == ("not UTF-8" if "byte" in seen else "not valid JSON")
    assert sum(record.num_bytes for record in records) == len(content)


def test_a_file_of_lines_is_cut_into_units_and_an_array_is_not(tmp_path: Path) -> None:
    from data_prep.inputs import find_inputs
    from data_prep.units import plan_units

    lines, array = write(tmp_path / "a.json", FILES["lines"]), write(tmp_path / "b.json", ARRAY)
    assert len(plan_units(find_inputs([str(lines)]), 100)) > 1
    assert len(plan_units(find_inputs([str(array)]), 100)) == 1
