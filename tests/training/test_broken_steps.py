"""Steps whose loss or gradient norm is not finite, and loss spikes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.broken import INFINITE_GRADIENT, INFINITE_LOSS, NAN, train_broken
from support.corpus import Corpus, bigbird_run_settings
from support.distributed import run_distributed
from support.runs import changed, last_tensors, metrics

from bigbird_ds.training.broken_steps import SPIKE_LEAST, SpikeWatch

STAGE = "deepspeed.zero_optimization.stage"
PERSIST = "deepspeed.zero_optimization.stage3_param_persistence_threshold"
FIVE_STEPS = {"train.steps": 5, "batch.micro": 1}
BROKEN = {2: NAN, 3: INFINITE_LOSS, 4: INFINITE_GRADIENT}
LAYOUTS: dict[str, dict[str, Any]] = {
    f"stage {stage} {'bf16' if bf16 else 'fp32'}": {
        STAGE: stage,
        **({PERSIST: 0} if stage == 3 else {}),
        "deepspeed.bf16.enabled": bf16,
    }
    for stage in (0, 1, 2, 3)
    for bf16 in (False, True)
}
LAYOUTS["stage 1 with sequence parallelism"] = {STAGE: 1, "parallel.sequence": 2}


@pytest.fixture(scope="module")
def pairs(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """Of each layout: a run with broken steps, and one that leaves out the same steps."""
    folder = tmp_path_factory.mktemp("broken")
    found = {}
    for name, layout in LAYOUTS.items():
        settings = changed(bigbird_run_settings(corpus, folder), **FIVE_STEPS | layout)
        broken = {"train.on_nonfinite": "skip", "output": str(folder / name / "broken")}
        skipped = {"train.skip_steps": [2, 4], "output": str(folder / name / "skipped")}
        found[name] = [changed(settings, **broken), changed(settings, **skipped)]
    runs = [
        (run, BROKEN if run["train"].get("on_nonfinite") else {})
        for runs in found.values()
        for run in runs
    ]
    assert run_distributed(train_broken, 2, runs) == [[None] * len(runs)] * 2
    return found


@pytest.mark.launch
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_that_is_not_finite_leaves_the_run_as_if_it_had_been_left_out(
    layout: str, pairs: dict[str, list[dict[str, Any]]]
) -> None:
    broken, skipped = pairs[layout]
    expected = last_tensors(skipped)
    found = last_tensors(broken)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    lines, others = metrics(broken), metrics(skipped)
    assert [line["step"] for line in lines] == [1, 5]
    for line, other in zip(lines, others, strict=True):
        assert (line["loss"], line["tokens"]) == (other["loss"], other["tokens"])
    assert [line["nonfinite_steps"] for line in lines] == [0, 3]
    state = json.loads((Path(broken["output"]) / "checkpoints/step-5/state.json").read_text())
    assert (state["skipped"], state["nonfinite"], state["nonfinite_in_a_row"]) == (3, 3, 0)


@pytest.mark.launch
def test_the_samples_of_a_broken_step_are_written_by_rank_and_micro_batch(
    pairs: dict[str, list[dict[str, Any]]],
) -> None:
    written = [
        json.loads(line)
        for line in (Path(pairs["stage 1 fp32"][0]["output"]) / "broken_steps.jsonl")
        .read_text()
        .splitlines()
    ]
    assert [(line["step"], line["event"]) for line in written] == [
        (step, "nonfinite") for step in BROKEN
    ]
    for line in written:
        # Four sequences a step: the order of the epoch, each rank a contiguous share.
        places = [
            (entry["rank"], entry["micro_batch"], [s["sample"] for s in entry["samples"]])
            for entry in line["micro_batches"]
        ]
        first = 4 * (line["step"] - 1)
        expected = [(0, 1, 0), (0, 2, 1), (1, 1, 2), (1, 2, 3)]
        assert places == [(rank, number, [first + offset]) for rank, number, offset in expected]
    losses = [[entry["loss"] for entry in line["micro_batches"]] for line in written]
    assert [[loss is None for loss in of_step] for of_step in losses] == [
        [False, False, False, True],
        [False, False, False, True],
        [False, False, False, False],  # only the gradient
    ]
    assert written[2]["loss"] is not None and written[2]["grad_norm"] is None
    shared = Path(pairs["stage 1 with sequence parallelism"][0]["output"]) / "broken_steps.jsonl"
    entries = json.loads(shared.read_text().splitlines()[0])["micro_batches"]
    assert [entry["samples"] for entry in entries[:4]] == [e["samples"] for e in entries[4:]]
    for document, start, stop in written[0]["micro_batches"][0]["samples"][0]["documents"]:
        assert document >= 0 and 0 <= start < stop


@pytest.mark.launch
def test_a_run_stops_with_its_last_state_saved_and_names_step_samples_and_remedy(
    run_settings: dict[str, Any],
) -> None:
    settings = changed(run_settings, **FIVE_STEPS)
    rest = changed(settings, **{"train.skip_steps": [3, 3]})
    for said in run_distributed(train_broken, 2, [(settings, {3: NAN}), (rest, {})]):
        assert said[1] is None
        assert said[0] is not None
        problem, seen, needed, change = said[0].splitlines()
        assert problem == "the loss or the gradient norm is not finite at step 3"
        assert (
            "loss nan" in seen and "rank 1, micro-batch 2: loss not finite, samples 11 of" in seen
        )
        assert "the state after step 2 is saved" in needed
        assert "train.skip_steps=[3,3]" in change and "--replay 3" in change
    assert (Path(settings["output"]) / "checkpoints" / "step-2").is_dir()
    assert [line["step"] for line in metrics(settings)] == [1, 2, 4, 5]


@pytest.mark.launch
def test_the_limit_of_skipped_steps_in_a_row_survives_a_resume(
    run_settings: dict[str, Any],
) -> None:
    skips = {"train.on_nonfinite": "skip", "train.max_nonfinite_in_a_row": 2}
    until_4 = changed(run_settings, **FIVE_STEPS | skips | {"schedule.total_steps": 6})
    until_4["train"]["steps"] = 4
    until_6 = changed(until_4, **{"train.steps": 6})
    # The first step too: an optimizer without a state of its own is saved.
    runs = [(until_4, {1: NAN, 3: NAN, 4: INFINITE_LOSS}), (until_6, {5: NAN}), (until_6, {})]
    for said in run_distributed(train_broken, 2, runs):
        assert said[0] is None and said[2] is None
        assert said[1] is not None
        assert "not finite at step 5, after 2 skipped steps in a row\n" in said[1]
    folder = Path(run_settings["output"]) / "checkpoints"
    states = [json.loads((folder / f"step-{n}/state.json").read_text()) for n in (4, 6)]
    counts = [(s["skipped"], s["nonfinite"], s["nonfinite_in_a_row"]) for s in states]
    assert counts == [(3, 3, 2), (3, 3, 0)]
    assert not (folder / "step-5").exists()


def test_a_spike_is_a_loss_far_above_the_mean_of_the_last_steps() -> None:
    losses = [2.0 + 0.1 * (-1) ** number for number in range(SPIKE_LEAST)]
    watch = SpikeWatch(6.0)
    assert watch.height(9.0) is None and SpikeWatch(6.0).height(9.0) is None  # too few steps
    watch, never = SpikeWatch(6.0), SpikeWatch(0.0)
    assert all(w.height(loss) is None for w in (watch, never) for loss in losses)
    assert watch.height(2.59) is None
    assert watch.height(0.5) is None
    height = watch.height(9.0)
    assert height is not None and height > 6 and math.isfinite(height)
    assert never.height(9.0) is None


def test_a_constant_loss_has_no_spikes() -> None:
    watch = SpikeWatch(6.0)
    assert all(watch.height(2.0) is None for _ in range(SPIKE_LEAST))
    assert watch.height(2.1) is None
