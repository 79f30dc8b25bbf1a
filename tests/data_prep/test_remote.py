"""Inputs at URLs, with fsspec's memory file system and a local web server."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import json
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.commands import contents
from support.corpus import Corpus

from bigbird_ds.errors import ConfigError, DataError
from data_prep.input_kinds import Kind
from data_prep.inputs import find_inputs
from data_prep.readers import read_piece
from data_prep.records import Document, Fields
from data_prep.shard_job import ShardOptions, write_shards
from data_prep.units import plan_units

fsspec = pytest.importorskip("fsspec")
needs_http = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="fsspec reads https:// with aiohttp"
)


@pytest.fixture
def memory() -> Iterator[object]:
    system = fsspec.filesystem("memory")
    lines = b"".join(json.dumps({"text": f"document {i}"}).encode() + b"\n" for i in range(50))
    system.pipe("/corpus/b/lines.jsonl", lines)
    system.pipe("/corpus/a.txt.gz", gzip.compress("Größe".encode()))
    system.pipe("/corpus/c.fa", b">c\nACGT\n")
    system.pipe("/corpus/notes.md", b"no document")
    yield system
    system.rm("/corpus", recursive=True)


def _texts(url: str, unit_bytes: int = 1 << 20) -> list[str]:
    units = plan_units(find_inputs([url]), unit_bytes)
    return [
        record.text
        for unit in units
        for piece in unit.pieces
        for record in read_piece(piece, Fields("text"))
        if isinstance(record, Document)
    ]


LINES = [f"document {i}" for i in range(50)]


@pytest.mark.parametrize(
    ("url", "texts"),
    [
        ("memory://corpus/b/lines.jsonl", LINES),
        ("memory://corpus", ["Größe", *LINES, "ACGT"]),
        ("memory://corpus/*", ["Größe", "ACGT"]),
        ("memory://corpus/**/*.jsonl", LINES),
    ],
)
def test_files_folders_and_globs_are_read(memory: object, url: str, texts: list[str]) -> None:
    assert _texts(url) == texts
    assert _texts(url, unit_bytes=100) == texts  # cut into many pieces


def test_names_are_relative_and_a_file_is_read_once(memory: object) -> None:
    inputs = find_inputs(["memory://corpus", "memory://corpus/c.fa"])
    assert [file.name for file in inputs] == ["a.txt.gz", "b/lines.jsonl", "c.fa"]
    assert [file.kind for file in inputs] == [Kind.TEXT, Kind.JSON_LINES, Kind.FASTA]
    assert inputs[2].num_bytes == 8


@pytest.mark.parametrize(
    ("url", "error", "seen"),
    [
        ("memory://corpus/notes.md", DataError, "unknown file type"),
        ("memory://corpus/none.txt", DataError, "does not exist"),
        ("memory://corpus/*.md", DataError, "files of other kinds"),
        ("nosuchsystem://a/b.txt", ConfigError, "nosuchsystem"),
    ],
)
def test_wrong_urls_are_user_errors(
    memory: object, url: str, error: type[Exception], seen: str
) -> None:
    with pytest.raises(error, match=seen):
        find_inputs([url])


def test_a_file_that_changes_is_noticed(memory: object) -> None:
    (file,) = find_inputs(["memory://corpus/b/lines.jsonl"])
    file.check_unchanged()
    memory.pipe("/corpus/b/lines.jsonl", b'{"text": "other"}\n')
    with pytest.raises(DataError, match="changed while the job ran"):
        file.check_unchanged()


class _Handler(SimpleHTTPRequestHandler):
    """Serves files with byte ranges; anything below /broken/ fails."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if "/broken/" in self.path or not path.is_file():
            self.send_error(500 if "/broken/" in self.path else 404)
            return
        data = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(match[1]), int(match[2])) if match else (0, len(data) - 1)
        part = data[first : last + 1]
        self.send_response(206 if match else 200)
        self.send_header("Accept-Ranges", "bytes")
        if match:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


@needs_http
def test_shards_of_a_url_are_those_of_the_file(
    server: tuple[str, Path], corpus: Corpus, tmp_path: Path
) -> None:
    address, folder = server
    (folder / corpus.documents.name).write_bytes(corpus.documents.read_bytes())
    url = f"{address}/{corpus.documents.name}"
    options = ShardOptions(unit_bytes=20_000, workers=2)
    write_shards([url], corpus.tokenizer, tmp_path / "remote", options)
    write_shards([str(corpus.documents)], corpus.tokenizer, tmp_path / "local", options)
    remote, local = (contents(tmp_path / name) for name in ("remote", "local"))
    tars = [name for name in local if name.endswith(".tar")]
    assert len(tars) > 1 and all(remote[name] == local[name] for name in tars)


@needs_http
def test_a_server_that_fails_is_a_user_error(server: tuple[str, Path]) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        find_inputs([f"{server[0]}/broken/a.txt"])
