"""Runs whose background saves are held up, fail, or are killed at a chosen moment."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from bigbird_ds.training.checkpoints import checkpoint, saving
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.ranks.distributed import Ranks
from support.runs import train_all


@contextmanager
def written_when_waited_for() -> Iterator[list[int]]:
    """Hold every background write back until the main thread waits for it.

    The copy is then written after later steps have changed weights, moments and loader. Yields a
    list, which gets the number of writes under way at each.
    """
    waited, under_way = threading.Event(), 0
    counts: list[int] = []
    write_share, wait = checkpoint._write_share, saving._Writing.wait

    def held(*arguments: Any) -> Any:
        nonlocal under_way
        under_way += 1
        counts.append(under_way)
        if threading.current_thread() is not threading.main_thread():
            assert waited.wait(timeout=120)
            waited.clear()
        share = write_share(*arguments)
        under_way -= 1
        return share

    def release(writing: Any, progress: Any) -> None:
        waited.set()
        wait(writing, progress)

    with (
        mock.patch.object(checkpoint, "_write_share", held),
        mock.patch.object(saving._Writing, "wait", release),
    ):
        yield counts


def train_and_hold_saves(
    ranks: Ranks, foreground: list[dict[str, Any]], background: list[dict[str, Any]]
) -> list[int]:
    """Train some runs as usual and others with held saves; return the writes under way at each."""
    train_all(ranks, foreground)
    with written_when_waited_for() as counts:
        train_all(ranks, background)
    return counts


def stop_while_a_save_is_held(ranks: Ranks, settings: dict[str, Any]) -> tuple[int, list[str]]:
    """Stop the last rank in step 3, while the save of step 2 is held.

    Returns:
        The exit code, and the checkpoints when the loop has ended step 3.
    """
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.ranks.stopping import StopRequest
    from bigbird_ds.training.setup import build_run

    run, request = build_run(check_run_config(settings, "test"), ranks), StopRequest()
    found: list[str] = []
    finish = saving.Saver._finish

    def look_and_finish(saver: Any) -> None:
        if request or run.state.step == 3:
            found.extend(sorted(path.name for path in folder.iterdir()))
        finish(saver)

    def ask(*_: Any) -> None:
        if run.state.step == 2 and ranks.rank == ranks.world_size - 1:
            request.set("test")

    folder = Path(settings["output"]) / "checkpoints"
    run.engine.module.register_forward_pre_hook(ask)
    with written_when_waited_for(), mock.patch.object(saving.Saver, "_finish", look_and_finish):
        return train(run, request), found


def train_and_kill_rank_1_in_a_save(ranks: Ranks, settings: dict[str, Any], step: int) -> None:
    """Train; ``kill -9`` of rank 1 once it has written the weights, not the moments, of a step."""
    write_tensor_file = checkpoint.write_tensor_file

    def write(path: Path, tensors: dict[str, Any]) -> None:
        if ranks.rank == 1 and f".step-{step}." in str(path) and path.name.startswith("optimizer"):
            os.kill(os.getpid(), signal.SIGKILL)
        write_tensor_file(path, tensors)

    with mock.patch.object(checkpoint, "write_tensor_file", write):
        train_all(ranks, [settings])
