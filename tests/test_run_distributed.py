"""The processes of ``run_distributed`` are like started ones, and their failures fail the test."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from support.distributed import run_distributed

from bigbird_ds.training.ranks.distributed import Ranks


def what_a_process_has(ranks: Ranks) -> tuple[str | None, str, tuple[float, float]]:
    print(f"said by rank {ranks.rank}", flush=True)
    os.system("echo said by a command >&2")
    numbers = float(np.random.rand()), random.random()
    return os.environ.get("SET_BY_A_TEST"), str(Path.cwd()), numbers


def fail_on_rank_1(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise ValueError("so it ends")


def die_on_rank_1(ranks: Ranks) -> None:
    if ranks.rank == 1:
        os._exit(3)


def test_processes_have_the_variables_the_folder_and_the_output_of_their_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_distributed(what_a_process_has, 1)  # started before what follows
    capfd.readouterr()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SET_BY_A_TEST", "here")
    first, second = run_distributed(what_a_process_has, 2)
    assert first[:2] == second[:2] == ("here", str(tmp_path))
    assert not {*first[2]} & {*second[2]}, "each has random numbers of its own"
    said = capfd.readouterr()
    assert "said by rank 0" in said.out and "said by rank 1" in said.out
    assert said.err.count("said by a command") == 2
    monkeypatch.delenv("SET_BY_A_TEST")
    assert run_distributed(what_a_process_has, 1)[0][0] is None


@pytest.mark.parametrize(
    "function,said",
    [
        (fail_on_rank_1, "ValueError: so it ends"),
        (die_on_rank_1, "the process died without a word"),
    ],
)
def test_a_process_that_fails_or_dies_fails_the_test(function: object, said: str) -> None:
    with pytest.raises(AssertionError, match=f"rank 1: (.|\n)*{said}"):
        run_distributed(function, 2)  # type: ignore[arg-type]
