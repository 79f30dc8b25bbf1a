"""Parts of an optimizer step other than the loss: dropout, its random numbers, clipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.corpus import Corpus, bigbird_run_settings
from support.distributed import run_distributed
from support.runs import changed, last_tensors, metrics

from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.ranks.distributed import Ranks

STAGE = "deepspeed.zero_optimization.stage"
PERSIST = "deepspeed.zero_optimization.stage3_param_persistence_threshold"
CLIP = 0.25


def forward_passes(ranks: Ranks, runs: list[dict[str, Any]]) -> list[list[tuple[bool, int]]]:
    """Per forward pass of each run: whether dropout is active, and its seed."""
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.ranks.stopping import StopRequest
    from bigbird_ds.training.setup import build_run

    found = []
    for settings in runs:
        run = build_run(check_run_config(settings, "test"), ranks)
        passes: list[tuple[bool, int]] = []
        run.engine.module.register_forward_pre_hook(
            lambda module, _, passes=passes: passes.append((module.training, torch.initial_seed()))
        )
        assert train(run, StopRequest()) == 0
        found.append(passes)
    return found


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The config of every run below."""
    folder = tmp_path_factory.mktemp("steps")
    settings = bigbird_run_settings(corpus, folder / "whole")
    evaluated = {"data.validation": str(corpus.shards), "train.eval_every": 1, "batch.micro": 1}
    three_steps = {"schedule.total_steps": 3, "train.steps": 3}
    whole = changed(settings, **evaluated | three_steps)
    half = changed(whole, **{"train.steps": 2, "output": str(folder / "half")})
    rest = changed(half, **{"train.steps": 3})
    one_step = {"train.steps": 1, "schedule.warmup_steps": 0, "optimizer.clip": CLIP}
    stages = [{STAGE: 0}, {STAGE: 1, "batch.micro": 1}, {STAGE: 3, PERSIST: 0}]
    clipped = {
        f"clipped at stage {stage[STAGE]}": changed(
            settings, **one_step | stage, output=str(folder / f"clipped{stage[STAGE]}")
        )
        for stage in stages
    }
    skipped = changed(
        whole,
        **{"train.skip_steps": [2, 2], "train.save_every": 2, "output": str(folder / "skipped")},
    )
    step = str(folder / "skipped" / "checkpoints" / "step-2")
    resumed = changed(skipped, output=str(folder / "resumed"), resume=step)
    skips = {"skipped": skipped, "resumed": resumed}
    return {"whole": whole, "half": half, "rest": rest} | clipped | skips


@pytest.fixture(scope="module")
def passes(runs: dict[str, dict[str, Any]]) -> list[dict[str, list[tuple[bool, int]]]]:
    """``forward_passes`` of every run, by its name, on each of two ranks."""
    found = run_distributed(forward_passes, 2, list(runs.values()))
    return [dict(zip(runs, of_rank, strict=True)) for of_rank in found]


@pytest.mark.launch
def test_every_forward_pass_of_training_drops_other_weights_and_an_evaluation_none(
    passes: list[dict[str, list[tuple[bool, int]]]],
) -> None:
    seeds = []
    for of_rank in passes:
        modes = [training for training, _ in of_rank["whole"]]
        evaluation = [False] * (modes.count(False) // 3)
        assert evaluation and modes == [True, True, *evaluation] * 3  # two micro-batches per step
        seeds += [seed for training, seed in of_rank["whole"] if training]
    assert len(set(seeds)) == len(seeds) == 2 * 3 * 2


@pytest.mark.launch
def test_a_resumed_run_drops_what_it_would_have_dropped(
    passes: list[dict[str, list[tuple[bool, int]]]],
) -> None:
    for of_rank in passes:
        whole, *parts = (
            [seed for training, seed in of_rank[name] if training]
            for name in ("whole", "half", "rest")
        )
        assert whole == [seed for part in parts for seed in part]


@pytest.mark.launch
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_gradients_are_clipped_by_their_norm_over_all_ranks_which_the_metrics_tell_unclipped(
    stage: int, runs: dict[str, dict[str, Any]], passes: list[Any]
) -> None:
    run = runs[f"clipped at stage {stage}"]
    # The first step's first moments are a tenth of the gradients (betas[0] is 0.9).
    moments = [m.flatten() for name, m in last_tensors(run).items() if name.startswith("exp_avg/")]
    assert float(torch.cat(moments).norm()) / 0.1 == pytest.approx(CLIP, rel=1e-3)
    assert metrics(run)[0]["grad_norm"] > 2 * CLIP


@pytest.mark.launch
def test_a_skipped_step_reads_its_batch_and_trains_on_the_others_also_after_a_resume(
    runs: dict[str, dict[str, Any]], passes: list[Any]
) -> None:
    whole, skipped = metrics(runs["whole"]), metrics(runs["skipped"])
    trained = [line for line in skipped if "loss" in line]
    assert [line["step"] for line in trained] == [1, 3]
    tokens = [line["tokens"] for line in whole if "loss" in line]
    assert trained[1]["tokens"] - trained[0]["tokens"] == tokens[2] - tokens[1]
    # The last update depends on the optimizer's own count of steps.
    expected, found = last_tensors(runs["skipped"]), last_tensors(runs["resumed"])
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
