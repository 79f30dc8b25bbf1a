"""A CUDA out-of-memory error says what to lower, in order, and what it does not name is in use."""

from __future__ import annotations

import contextlib
import logging
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
from support.processes import REPOSITORY

from bigbird_ds import log
from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.training.out_of_memory import saying_what_to_lower, what_to_lower
from launch import pretrain

TINY = "configs/run/tiny_cpu.yaml"
SAID = "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 10 MiB free."


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def test_what_is_lowered_already_is_not_named() -> None:
    assert what_to_lower(load_run_config(TINY), 2).split(", then ") == [
        "batch.micro=1",
        "deepspeed.bf16.enabled=true",
        "train.activation_checkpointing=true",
        "deepspeed.zero_optimization.stage=2",
        "deepspeed.zero_optimization.stage=3",
        "deepspeed.zero_optimization.offload_optimizer.device=cpu",
        "parallel.sequence above 1",
        "a shorter data.sequence_length",
    ]
    lowered = [
        "batch.micro=1",
        "deepspeed.bf16.enabled=true",
        "deepspeed.zero_optimization.stage=0",
    ]
    changed = load_run_config(TINY, [*lowered, "train.activation_checkpointing=true"])
    assert what_to_lower(changed, 1) == "a shorter data.sequence_length"


def test_a_rank_other_than_the_first_logs_it_whole(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log, "rank", 3)
    monkeypatch.setattr(log.logger, "propagate", True)
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(ConfigError),
        saying_what_to_lower(load_run_config(TINY), 4),
    ):
        raise torch.OutOfMemoryError(SAID)
    assert "change: batch.micro=1, then" in caplog.text


def test_the_program_ends_as_with_any_user_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*_: Any) -> NoReturn:
        raise torch.OutOfMemoryError(SAID)

    ranks = SimpleNamespace(device=torch.device("cuda"), world_size=1)
    training = "bigbird_ds.training"
    monkeypatch.setattr(pretrain, "stop_with_launcher", lambda request: None)
    monkeypatch.setattr(f"{training}.ranks.distributed.start", lambda *_: ranks)
    monkeypatch.setattr(f"{training}.ranks.watchdog.watching", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(f"{training}.setup.build_run", lambda *_, **__: None)
    monkeypatch.setattr(f"{training}.loop.train", train)
    monkeypatch.setattr("sys.argv", ["pretrain.py", TINY])
    assert pretrain.main() == 2
    said = capsys.readouterr().err
    assert "error: out of GPU memory\n  seen:   CUDA out of memory. Tried to allocate" in said
    assert "change: batch.micro=1, then deepspeed.bf16.enabled=true, then" in said
    assert "docs/out_of_memory.md" in said and "Traceback" not in said
