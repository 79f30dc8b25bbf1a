"""``--dry-run``: every phase once, and nothing left."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from support.corpus import Corpus
from support.distributed import run_distributed
from support.runs import changed

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.ranks.distributed import Ranks


def dry_runs(ranks: Ranks, settings: dict[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """What a dry run prints, and the bytes that it measured and those that are planned.

    Each look at the clock is a second after the one before.
    """
    from bigbird_ds.training import dry_run
    from bigbird_ds.training.planning.memory import plan_memory
    from bigbird_ds.training.ranks.stopping import StopRequest

    config = check_run_config(settings, "test")
    measured: list[tuple[int, int]] = []

    def measure(engine: Any, model: Any) -> tuple[int, int]:
        planned = plan_memory(config, model.config, ranks.world_size)
        measured.append(held_bytes(engine, model))
        measured.append((planned.weights, planned.optimizer))
        return measured[0]

    held_bytes = dry_run.held_bytes
    with (
        mock.patch.object(dry_run, "held_bytes", measure),
        mock.patch.object(dry_run, "time", SimpleNamespace(perf_counter=count().__next__)),
        contextlib.redirect_stdout(io.StringIO()) as text,
    ):
        assert dry_run.dry_run(config, ranks, StopRequest()) == 0
    return text.getvalue(), measured


@pytest.mark.launch
def test_a_dry_run_measures_every_phase_beside_the_plan_and_leaves_nothing(
    run_settings: dict[str, Any], corpus: Corpus, tmp_path: Path
) -> None:
    settings = changed(run_settings, **{"data.validation": str(corpus.shards), "batch.micro": 1})
    settings["output"] = str(tmp_path / "runs" / "one")
    before = sorted(tmp_path.iterdir())
    (printed, measured), (silent, _) = run_distributed(dry_runs, 2, settings)
    assert silent == "" and sorted(tmp_path.iterdir()) == before

    memory, seconds = (
        {words[0]: words[1:] for line in part.splitlines() if (words := line.split())}
        for part in printed.split("\nseconds\n")
    )
    assert measured[0] == pytest.approx(measured[1], rel=0.02)  # ZeRO pads its partitions
    assert all(len(memory[kind]) == 2 for kind in ("weights", "optimizer", "rest"))
    assert float(memory["total"][1]) > 0.1  # a process, on a CPU
    # Each rank has two micro-batches, and DeepSpeed's step ends each.
    phases = ["forward", "backward", "optimizer"]
    assert [seconds[phase] for phase in phases] == [["2.00"]] * 3
    phases = ["start", "data", "save", "evaluation", "resume"]
    assert [seconds[phase] for phase in phases] == [["1.00"]] * 5
    assert seconds["checkpoint:"][-1] == "hashing"


def test_an_output_that_cannot_be_written_is_found() -> None:
    with pytest.raises(ConfigError, match="the output cannot be written"):
        folder_of("/proc/runs/one").__enter__()


def test_the_folder_of_a_killed_dry_run_is_removed_and_that_of_a_live_one_is_kept(
    tmp_path: Path,
) -> None:
    with folder_of(str(tmp_path / "run")) as folder:
        lock = next(Path(folder).iterdir()).name
    live, killed = tmp_path / ".dry-run-live", tmp_path / ".dry-run-killed"
    for path in (live, killed):
        path.mkdir()
        (path / lock).touch()
    words = [sys.executable, "-c", _HOLD, str(live / lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"locked\n"
        with folder_of(str(tmp_path / "run")) as folder:
            assert set(tmp_path.iterdir()) == {live, Path(folder)}
        process.communicate()


_HOLD = """
import sys
from pathlib import Path
from bigbird_ds import files
with Path(sys.argv[1]).open("a") as stream:
    files.lock(stream)
    print("locked", flush=True)
    sys.stdin.read()
"""


def folder_of(output: str) -> contextlib.AbstractContextManager[str]:
    from bigbird_ds.training.dry_run import _folder

    return _folder(SimpleNamespace(output=output))  # type: ignore[arg-type]
