"""``continue_from``: a run goes on at another length with the same optimizer."""

from __future__ import annotations

import io
import itertools
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.distributed import run_distributed
from support.runs import changed, errors_of, last_tensors, metrics, train_one

from bigbird_ds import BigBirdForPreTraining
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.export import export
from bigbird_ds.log import logger
from bigbird_ds.training.checkpoints.length_stage import with_positions
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.ranks.distributed import Ranks

LENGTHS = (512, 1024, 4096)
TABLE = "bert.embeddings.position_embeddings.weight"
WORDS = "bert.embeddings.word_embeddings.weight"
SECOND = "exp_avg_sq"


def stages(settings: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """A run of two steps at each length; each continues the one before."""
    found: list[dict[str, Any]] = []
    for number, length in enumerate(LENGTHS, start=1):
        stage = changed(
            settings,
            **{
                "model.max_position_embeddings": length,
                "model.random_style": "relay",
                "data.sequence_length": length,
                "batch.sequences": 2,
                "batch.micro": 1,
                "train.steps": 2 * number,
                "schedule.total_steps": 2 * len(LENGTHS) + 1,
                "output": str(folder / str(length)),
            },
        )
        if found:
            stage["continue_from"] = found[-1]["output"]
        found.append(stage)
    return found


def train_and_refuse(
    ranks: Ranks, runs: list[dict[str, Any]], refused: list[dict[str, Any]]
) -> tuple[str, list[str | None]]:
    """Train each run, then set up the others: the log, and the errors."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logger.addHandler(handler)
    for settings in runs:
        train_one(ranks, settings)
    logger.removeHandler(handler)
    return text.getvalue(), errors_of(ranks, refused)


@pytest.mark.launch
def test_a_run_goes_on_at_512_then_1024_then_4096_tokens(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    runs = stages(run_settings, tmp_path)
    # The last stage is stopped and run again: it resumes itself, not the stage before.
    again = changed(runs[-1], **{"train.steps": 7})
    no_folder = str(tmp_path / "none")
    refused = {
        "max_position_embeddings=256, 512 in": {
            "model.max_position_embeddings": 256,
            "data.sequence_length": 256,
        },
        "intermediate_size=64": {"model.intermediate_size": 128},
        f"no folder {no_folder}": {"continue_from": no_folder},
    }
    others = [
        changed(runs[1], **changes, output=str(tmp_path / f"refused{number}"))
        for number, changes in enumerate(refused.values())
    ]
    ((log, errors),) = run_distributed(train_and_refuse, 1, [*runs, again], others)
    for seen, error in zip(refused, errors, strict=True):
        assert error is not None and seen in error
    assert not list(tmp_path.glob("refused*"))

    assert "positions 512 -> 1024: row i is row i modulo 512" in log
    assert "positions 1024 -> 4096: row i is row i modulo 1024" in log
    assert log.count("the data starts anew") == 2
    assert [[line["step"] for line in metrics(run)] for run in runs] == [
        [1, 2],
        [3, 4],
        [5, 6, 7],
    ]
    for run, length, steps in zip([*runs[:-1], again], LENGTHS, (2, 2, 3), strict=True):
        folder = Path(run["output"]) / "checkpoints" / f"step-{run['train']['steps']}"
        state = json.loads((folder / "state.json").read_text())
        assert state["step"] == run["train"]["steps"]
        assert state["data"]["samples_seen"] == 2 * steps
        assert last_tensors(run)[TABLE].shape == (length, 32)
        assert last_tensors(run)[f"exp_avg/{TABLE}"].shape == (length, 32)

    export(Path(again["output"]), tmp_path / "export")
    exported = BigBirdForPreTraining.from_pretrained(tmp_path / "export")
    assert exported.config.random_style == "relay"
    assert torch.equal(exported.state_dict()[TABLE], last_tensors(again)[TABLE])
    card = (tmp_path / "export" / "README.md").read_text()
    assert "transformers ignores the random style relay" in card

    # Two steps multiply the second moments by 0.999 squared, and add squares.
    for before, after in itertools.pairwise(runs):
        old, new = last_tensors(before), last_tensors(after)
        for name in (TABLE, WORDS):
            moment = f"{SECOND}/{name}"
            rows = torch.arange(len(new[moment])) % len(old[moment])
            assert (new[moment] >= 0.998 * old[moment][rows] * (1 - 1e-5)).all()
            assert (old[moment] > 0).any()
        start = old[TABLE][torch.arange(len(new[TABLE])) % len(old[TABLE])]
        assert (new[TABLE] - start).abs().max() < 10 * run_settings["optimizer"]["lr"]


def test_one_checkpoint_to_start_from(run_settings: dict[str, Any]) -> None:
    both = changed(run_settings, continue_from="first", resume="second/checkpoints/step-1")
    with pytest.raises(ConfigError, match="two checkpoints"):
        check_run_config(both, "test")
    weights = changed(run_settings, continue_from="first", initial_weights="imported")
    with pytest.raises(ConfigError, match="would have no effect"):
        check_run_config(weights, "test")


def test_new_positions_repeat_weights_and_second_moments_with_a_first_moment_of_zero() -> None:
    table = torch.arange(1.0, 5.0).view(2, 2)
    for kind in ("weight", SECOND, "row_var"):
        extended = with_positions(kind, TABLE, table, 2, 5)
        assert torch.equal(extended, table[[0, 1, 0, 1, 0]])
    first = with_positions("exp_avg", TABLE, table, 2, 5)
    assert torch.equal(first[:2], table) and (first[2:] == 0).all() and len(first) == 5
    assert with_positions("weight", WORDS, table, 2, 5) is table
    assert with_positions("col_var", TABLE, table[:1], 2, 5).shape == (1, 2)
