"""W&B in offline mode, by the records in its own files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.trackers import check_trackers

wandb = pytest.importorskip("wandb", reason="the wandb extra is not installed")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_NAME", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def records(path: Path) -> Iterator[Any]:
    """The protocol buffers of a ``.wandb`` file shorter than a block of its format (32 KiB)."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content[:4] == b":W&B" and len(content) < 32768
    place = 7
    while place < len(content):
        _, length, _ = struct.unpack("<IHB", content[place : place + 7])
        record = Record()
        record.ParseFromString(content[place + 7 : place + 7 + length])
        yield record
        place += 7 + length


def test_an_offline_run_keeps_its_id_and_has_config_and_true_steps(
    stopped_and_resumed: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # it reads the environment once in a process
    check_trackers(["wandb"])
    stopped_and_resumed("wandb")
    wandb.teardown()  # its own process writes the files
    run_id = (tmp_path / "run_id").read_text().strip()
    found: dict[int, dict[str, Any]] = {}
    paths = sorted(tmp_path.glob(f"wandb/offline-run-*-{run_id}*/run-{run_id}.wandb"))
    config = ""
    for path in paths:
        for record in records(path):
            config += str(record.run.config)
            values = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            if values:
                found.setdefault(values["_step"], {}).update(values)
    assert {step: values.get("train/loss") for step, values in found.items()} == {
        step: 10.0 * step for step in (1, 2, 3, 4)
    }
    assert found[3]["eval/loss"] == 7.0 and "eval/samples/path" in found[3]
    assert "hidden_size" in config


def test_a_missing_key_is_an_error_before_the_run_not_a_question() -> None:
    wandb.teardown()
    with pytest.raises(ConfigError, match="W&B has no API key"):
        check_trackers(["wandb"])
