"""Evaluations during a run: after the checkpoint, stopped between batches, made up on resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, metrics, stop_evaluation_and_go_on, train_all

from bigbird_ds.cli.main import main
from bigbird_ds.errors import EXIT_REQUEUE


@pytest.mark.launch
def test_an_evaluation_stops_on_request_and_the_resumed_run_makes_it_up(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    evaluated = {"train.save_every": 2, "train.eval_every": 2, "train.eval_windows": 5}
    stopped = changed(
        run_settings, **evaluated | {"data.validation": run_settings["data"]["train"]}
    )
    whole = changed(stopped, output=str(tmp_path / "whole"))
    found = run_distributed(stop_evaluation_and_go_on, 2, whole, stopped, 2)
    assert len({places for _, _, places in found}) == 1  # or the watchdog names the wrong ranks
    for code, lines, _ in found:
        assert code == EXIT_REQUEUE
        assert [line["step"] for line in lines] == [1, 2]
        assert not any("eval_loss" in line for line in lines)

    lines, expected = metrics(stopped), metrics(whole)
    assert [line["step"] for line in lines] == [1, 2, 2, 3, 4, 4]
    for name in ("loss", "eval_loss", "eval_mlm_accuracy"):
        values = [line[name] for line in lines if name in line]
        others = [line[name] for line in expected if name in line]
        assert values and values == pytest.approx(others, rel=1e-5), name


@pytest.mark.launch
def test_the_command_repeats_the_evaluation_of_a_run(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    shards = run_settings["data"]["train"]
    run_settings["data"].update(validation=shards)
    run_settings["train"].update(steps=2, eval_windows=5)
    ((lines,),) = run_distributed(train_all, 1, [run_settings])
    expected, file = lines[-1], tmp_path / "found.json"
    words = [run_settings["output"], shards, "--windows", 5, "--json", file]
    assert main(["evaluate", *map(str, words)]) == 0
    parts = {part["part"]: part for part in json.loads(file.read_text())["lengths"][0]["parts"]}
    assert set(parts) == {"mlm", "nsp"}
    for name, part in parts.items():
        assert part["loss"]["value"] == pytest.approx(expected[f"eval_{name}_loss"], rel=1e-5)
        assert part["accuracy"]["value"] == pytest.approx(expected[f"eval_{name}_accuracy"])
