"""An export is uploaded completely, and the token appears only in the requests."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.hub_server import HubServer, hub_server

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.errors import ConfigError
from bigbird_ds.files import sha256_of
from bigbird_ds.hub.push import check_can_push, push

TOKEN = "hf_averysecrettokenthatnobodymaysee"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The stub, at the address that the library uses for the Hub.

    The library reads its environment when it is imported, so the constants are set as HF_ENDPOINT
    and HF_HUB_DISABLE_XET would set them; tests/hub/test_export.py sets the variables themselves.
    """
    with hub_server(TOKEN) as running:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = BigBirdConfig(vocab_size=120, hidden_size=16, num_hidden_layers=2,
                           num_attention_heads=2, intermediate_size=24)  # fmt: skip
    BigBirdForMaskedLM(config).save_pretrained(tmp_path / "model", max_shard_size=200_000)
    (tmp_path / "model" / "README.md").write_text("---\nlibrary_name: transformers\n---\n")
    return tmp_path / "model"


def test_every_file_arrives_with_its_bytes_in_a_private_repository(
    server: HubServer, folder: Path
) -> None:
    check_can_push("someone/model")
    address = push(folder, "someone/model")
    assert address == f"{server.address}/someone/model/commit/{'1' * 40}"
    assert server.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len([name for name in server.files if name.endswith(".safetensors")]) == 3
    (made,) = server.repositories
    assert (made["name"], made["organization"]) == ("model", "someone")
    assert made.get("private") is True or made.get("visibility") == "private"
    assert server.unknown == []


def test_the_xet_library_uploads_large_files_and_never_shows_the_token(
    folder: Path, tmp_path: Path
) -> None:
    """In a separate process, with everything that a run may print at debug level."""
    pytest.importorskip("hf_xet", reason="huggingface_hub brings it on common processors")
    pytest.importorskip(
        "huggingface_hub", minversion="2.0", reason="older ones ask the server for other addresses"
    )
    code = "import logging, sys; logging.basicConfig(level=logging.DEBUG); from pathlib import Path"
    code += (
        "; from bigbird_ds.hub.push import push; print(push(Path(sys.argv[1]), 'someone/model'))"
    )
    with hub_server(TOKEN) as server:
        environment = os.environ | {
            "HF_TOKEN": TOKEN,
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "0",
            "HF_HUB_OFFLINE": "0",
            "HF_DEBUG": "1",
            "RUST_LOG": "debug",
        }
        words = [sys.executable, "-c", code, str(folder)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    weights = {path.name for path in folder.glob("*.safetensors")}
    assert server.hashes == {name: sha256_of(folder / name) for name in weights}
    assert sum(map(len, server.blocks)) > 0.5 * sum((folder / n).stat().st_size for n in weights)
    others = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert server.files == {name: others[name] for name in others.keys() - weights}
    assert server.unknown == []
    assert TOKEN not in done.stdout + done.stderr
    logs = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert all(TOKEN.encode() not in path.read_bytes() for path in logs)


def test_a_refused_token_is_not_shown(
    server: HubServer,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.token = "hf_another"
    with caplog.at_level(logging.DEBUG):
        for attempt in (
            lambda: check_can_push("someone/model"),
            lambda: push(folder, "someone/model"),
        ):
            with pytest.raises(ConfigError, match="upload to the Hub failed") as caught:
                attempt()
            assert caught.value.__cause__ is None
            assert TOKEN not in str(caught.value)
            assert server.address in str(caught.value)
        assert "not let in with Bearer (the token)" in str(caught.value)  # the server quotes it
    assert TOKEN not in caplog.text
    assert TOKEN not in "".join(capfd.readouterr())
    assert server.files == {}


@pytest.mark.parametrize("name", ["model", "a/b/c", "some one/model", ""])
def test_a_name_that_no_repository_can_have_is_refused_before_any_request(
    server: HubServer, name: str
) -> None:
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        check_can_push(name)
    assert server.repositories == []


def test_a_missing_token_or_library_is_an_error_with_a_remedy(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="hf auth login"):
        check_can_push("someone/model")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="pip install huggingface_hub"):
        check_can_push("someone/model")
