"""``--replay STEP``: the numbers of a step of a run, and where they stop being finite."""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, metrics, train_one

from bigbird_ds.errors import UserError
from bigbird_ds.hub.checkpoints import LOGS_NAME
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.ranks.distributed import Ranks

BROKEN_MODULE = "model.bert.encoder.layer.1.intermediate"
RUN = {
    "model.hidden_dropout_prob": 0.1,
    "batch.micro": 1,
    "train.save_every": 2,
    "train.keep_checkpoints": 1,
    "train.keep_every": 2,
    "deepspeed.zero_optimization.stage": 3,
    "deepspeed.zero_optimization.stage3_param_persistence_threshold": 0,
}


def files_in(folder: Path) -> dict[str, int]:
    """Times of change; without the logs, which the run in this process still writes."""
    paths = [path for path in sorted(folder.rglob("*")) if path.parent.name != LOGS_NAME]
    return {str(path): path.stat().st_mtime_ns for path in paths}


def replays(ranks: Ranks, settings: dict[str, Any]) -> tuple[list[str], str, bool]:
    """Train; replay step 4, then step 3 with a module of rank 1 broken, then a step 9.

    Returns:
        What the first two print, the error of the third, and whether the run folder is unchanged.
    """
    from bigbird_ds.training.ranks.stopping import StopRequest
    from bigbird_ds.training.replay import replay
    from bigbird_ds.training.setup import build_run

    train_one(ranks, settings)
    before = files_in(Path(settings["output"]))
    ranks.barrier()
    config = check_run_config(settings, "test")
    printed = []
    for step in (4, 3):
        run = build_run(config, ranks, replayed=step)
        if step == 3 and ranks.rank == 1:
            module = dict(run.engine.module.named_modules())[BROKEN_MODULE]
            module.register_forward_hook(lambda _, __, output: output * math.inf)
        with contextlib.redirect_stdout(io.StringIO()) as text:
            assert replay(run, StopRequest(), step) == 0
        printed.append(text.getvalue())
        ranks.barrier()
    try:
        build_run(config, ranks, replayed=9)
    except UserError as error:
        return printed, str(error), files_in(Path(settings["output"])) == before
    raise AssertionError("there is no step 9")


@pytest.mark.launch
def test_a_replay_has_the_numbers_of_the_run_and_says_where_they_are_not_finite(
    run_settings: dict[str, Any],
) -> None:
    settings = changed(run_settings, **RUN)
    (printed, error, is_unchanged), (silent, *_) = run_distributed(replays, 2, settings)
    assert silent == ["", ""] and is_unchanged
    assert "--replay 9, train.steps=4" in error

    line = metrics(settings)[3]
    assert line["step"] == 4
    lines = printed[0].splitlines()
    assert lines[0] == "replay of step 4, from the checkpoint of step 2"
    for name in ("loss", "mlm_loss", "nsp_loss", "grad_norm"):
        assert f"  {name} {line[name]!r}" in lines
    # Step 4 reads the samples 12 to 15 of the epoch, one in a micro-batch.
    for rank, number, sample in ((0, 1, 12), (0, 2, 13), (1, 1, 14), (1, 2, 15)):
        (found,) = (row for row in lines if f"rank {rank}, micro-batch {number}: loss " in row)
        assert f"samples {sample} of epoch 0 (documents " in found
    for rank in (0, 1):
        assert f"  rank {rank}, first that is not finite: no activation; no gradient" in lines

    assert "from the checkpoint of step 2" in printed[1] and "  loss nan" in printed[1]
    assert "rank 0, first that is not finite: no activation; no gradient" in printed[1]
    assert (
        f"rank 1, first that is not finite: output of {BROKEN_MODULE}, micro-batch 1; "
        in (printed[1])
    )
    assert "gradient of " in printed[1]
