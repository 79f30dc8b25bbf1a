"""A stub of the Hub's HTTP API on loopback: the endpoints of an upload; it keeps every byte.

Large files arrive as whole files (the LFS protocol) or, from the library ``hf_xet``, as compressed
blocks for separate storage (the Xet protocol), which the stub keeps unchanged.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BLOCKS_TOKEN = "a token only for the storage of blocks"


class HubServer(ThreadingHTTPServer):
    """What was requested: ``repositories``, and the ``files`` of the one commit.

    For a file that arrived as ``blocks`` the commit gives the sha256: ``hashes``.

    Args:
        token: the only valid one.
    """

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repositories: list[dict[str, Any]] = []
        self.large: dict[str, bytes] = {}  # sha256 -> bytes
        self.files: dict[str, bytes] = {}
        self.hashes: dict[str, str] = {}
        self.blocks: list[bytes] = []
        self.unknown: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def hub_server(token: str) -> Iterator[HubServer]:
    server = HubServer(token)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer_request()

    def do_POST(self) -> None:
        self._answer_request()

    def do_PUT(self) -> None:
        body = self._body()
        self.server.large[self.path.rsplit("/", 1)[1]] = body
        self._answer({})

    def _answer_request(self) -> None:
        body = self._body()
        shown = self.headers.get("Authorization", "")
        if self.path.startswith("/blocks/") and shown == f"Bearer {BLOCKS_TOKEN}":
            self._keep_blocks(body)
            return
        if shown != f"Bearer {self.server.token}":  # a server that echoes what it was sent
            self._answer({"error": f"not let in with {shown}"}, 401)
            return
        path = self.path.split("?")[0]
        if path == "/api/whoami-v2":
            self._answer({"name": "someone", "type": "user", "auth": {"type": "access_token"}})
        elif path == "/api/repos/create":
            self.server.repositories.append(json.loads(body))
            self._answer({"url": f"{self.server.address}/someone/model"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self._answer({"files": [_upload_mode(entry) for entry in json.loads(body)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            self._answer(
                {"objects": [self._action(entry) for entry in json.loads(body)["objects"]]}
            )
        elif "/xet-write-token/" in path:
            expires = int(time.time()) + 3600
            address = f"{self.server.address}/blocks"
            self._answer({"casUrl": address, "exp": expires, "accessToken": BLOCKS_TOKEN})
        elif "/commit/" in path:
            self._commit(body)
            address = f"{self.server.address}/someone/model/commit/{'1' * 40}"
            self._answer({"commitUrl": address, "commitOid": "1" * 40})
        else:
            self.server.unknown.append(f"{self.command} {path}")
            self._answer({"error": "not found"}, 404)

    def _keep_blocks(self, body: bytes) -> None:
        if "/v1/xorbs/" in self.path:
            self.server.blocks.append(body)
            self._answer({"was_inserted": True})
        elif "/v1/shards" in self.path:  # which blocks form which file
            self._answer({"result": 1})
        else:  # blocks known already, and later versions of the protocol: none
            self._answer({}, 404)

    def _action(self, entry: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.server.address}/large/{entry['oid']}"
        return {**entry, "actions": {"upload": {"href": href, "header": {}}}}

    def _commit(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] in self.server.large:
                self.server.files[value["path"]] = self.server.large[value["oid"]]
            elif line["key"] == "lfsFile":
                self.server.hashes[value["path"]] = value["oid"]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: Any, status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _upload_mode(entry: dict[str, Any]) -> dict[str, Any]:
    large = entry["path"].endswith(".safetensors")
    return {
        "path": entry["path"],
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": False,
    }
