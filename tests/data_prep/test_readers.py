import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard
from support.records import only_bad, read, texts, write

from bigbird_ds.errors import DataError
from data_prep.records import BadRecord, Document, Fields
from data_prep.streams import open_bytes

LINES = b"".join(
    json.dumps({"text": f"document {i}", "n": {"id": i}}).encode() + b"\n" for i in range(9)
)
COMPRESS = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


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


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("content", [b"", LINES])
def test_a_compressed_file_of_no_bytes_or_with_garbage_behind_is_damaged(
    suffix: str, content: bytes, tmp_path: Path
) -> None:
    data = COMPRESS[suffix](content) + b"garbage" if content else b""
    write(tmp_path / "whole.jsonl", LINES)
    path = write(tmp_path / f"a.jsonl{suffix}", data)
    records = read(tmp_path)
    assert only_bad(records).where == str(path)
    assert only_bad(records).reason == "the file is damaged"


def test_padding_between_xz_streams_is_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.xz", (lzma.compress(LINES) + bytes(8)) * 2)
    assert len(texts(read(path))) == 18


def test_a_long_zstd_window_is_whole(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packer.compress(LINES) + packer.flush()
    assert zstandard.get_frame_parameters(data).window_size > 1 << 27
    assert len(texts(read(write(tmp_path / "a.jsonl.zst", data)))) == 9


def test_repetitive_zstd_takes_linear_time(tmp_path: Path) -> None:
    # Copying the remainder for every read makes this quadratic: minutes.
    line = b'{"text": "' + b"a" * 1000 + b'"}\n'
    path = write(tmp_path / "a.jsonl.zst", zstandard.ZstdCompressor().compress(line * 100_000))
    stream, raw = open_bytes(path, ".zst")
    with raw, stream:
        assert sum(1 for _ in stream) == 100_000


@pytest.mark.parametrize("name", ["a.json", "a.ndjson", "a.json.gz"])
def test_lines_of_json_go_by_several_names(name: str, tmp_path: Path) -> None:
    data = gzip.compress(LINES) if name.endswith(".gz") else LINES
    assert len(texts(read(write(tmp_path / name, data)))) == 9


def test_a_list_of_strings_is_paragraphs_and_a_name_may_hold_dots(tmp_path: Path) -> None:
    lines = b'{"doc": {"text": ["One.", "Two."]}}\n{"doc.text": "whole"}\n'
    assert texts(read(write(tmp_path / "a.jsonl", lines), Fields("doc.text"))) == [
        "One.\n\nTwo.",
        "whole",
    ]


def test_bytes_that_are_no_utf8_are_replaced_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "caf\xe9"}\n')
    fields = Fields("text", encoding_errors="replace")
    assert texts(read(path, fields)) == ["caf\N{REPLACEMENT CHARACTER}"]
    assert texts(read(write(tmp_path / "b.txt", b"\xff"), fields)) == ["\N{REPLACEMENT CHARACTER}"]


def test_control_characters_of_a_bad_line_are_escaped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"\x1b[2Jgone\n")
    assert only_bad(read(path)).seen.startswith("\\x1b[2Jgone")


def test_fields_are_found_through_dots(tmp_path: Path) -> None:
    records = read(
        write(tmp_path / "a.jsonl", b'{"a": {"b": "deep"}, "n": {"id": 7}}\n'),
        Fields("a.b", "n.id"),
    )
    assert [(r.text, r.id) for r in records if isinstance(r, Document)] == [("deep", "7")]


@pytest.mark.parametrize(
    ("line", "reason", "seen"),
    [
        (b'{"text": "cut off', "not valid JSON", "cut off"),
        (b"just words", "not valid JSON", "just words"),
        (b'{"txt": "a"}', "no field 'text'", "'txt'"),
        (b'["text"]', "no field 'text'", "['text']"),
        (b'{"text": 5}', "field 'text' is not text", "5"),
        (b'{"text": null}', "field 'text' is not text", "None"),
        (b'{"text": "\xff"}', "not UTF-8", "0xff"),
        (b'{"text": "\\ud800"}', "unpaired surrogate in the text", "surrogates"),
        (b"[" * 100_000, "not valid JSON", "[["),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "not valid JSON", "4300 digits"),
        (b'{"text": ["a", 1]}', "field 'text' is not text", "['a', 1]"),
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
    assert reasons == ["field 'id' is not an id", "unpaired surrogate in the text"]
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
