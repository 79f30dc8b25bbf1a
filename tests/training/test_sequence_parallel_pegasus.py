"""An encoder-decoder under sequence parallelism equals the run on one rank, at every layout.

Here every gradient is compared for both families, because starting processes is slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.corpus import Corpus, bigbird_run_settings
from support.distributed import run_distributed
from support.pegasus_corpus import pegasus_run_settings
from support.runs import changed, losses, train_and_differentiate

STAGE = "deepspeed.zero_optimization.stage"
PERSIST = "deepspeed.zero_optimization.stage3_param_persistence_threshold"
SHARED = "parallel.sequence"
CHECKPOINTS = "train.activation_checkpointing"
EPSILON = float(np.finfo(np.float32).eps)  # 1.2e-7


@dataclass(frozen=True)
class Trained:
    """Results of runs on one rank and of runs on ranks that share sequences.

    Attributes:
        one_rank: metrics of the run on one rank.
        shared: layout -> metrics on two ranks that share.
        resumed: metrics of a run on two ranks that share, then on four.
        gradients_one_rank: family -> parameter -> its gradient in the first step, on one rank.
        gradients_shared: family -> the same for each layout of two groups of two.
    """

    one_rank: list[dict[str, Any]]
    shared: dict[str, list[dict[str, Any]]]
    resumed: list[dict[str, Any]]
    gradients_one_rank: dict[str, dict[str, Any]]
    gradients_shared: dict[str, list[dict[str, Any]]]


FP32 = {
    "zero 1, checkpointed": {STAGE: 1, CHECKPOINTS: True},
    "zero 0": {STAGE: 0},
    "zero 2, accumulated": {STAGE: 2, "batch.micro": 1},
    "zero 3": {STAGE: 3, PERSIST: 0},
}
BF16 = {"deepspeed.bf16.enabled": True, "deepspeed.data_types.grad_accum_dtype": "fp32"}
TWO_BY_TWO = [{STAGE: 1}, {STAGE: 3, PERSIST: 0, CHECKPOINTS: True}]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, pegasus_corpus: Corpus, corpus: Corpus
) -> Trained:
    folder = tmp_path_factory.mktemp("runs")

    def run(settings: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
        return changed(settings, **changes, output=str(folder / name))

    # 47 target tokens: two ranks have 24 positions each, four have 12.
    pegasus = changed(
        pegasus_run_settings(pegasus_corpus, folder), **{"objective.target_length": 47}
    )
    half = run(
        pegasus,
        "resumed",
        **{"train.steps": 2, "schedule.total_steps": 4, "data.validation": None},
    )
    families = {
        "pegasus": changed(pegasus, **{"data.validation": None}),
        "bigbird": bigbird_run_settings(corpus, folder),
    }
    layouts = {**FP32, "bf16": {**BF16, STAGE: 2}}
    one_rank, gradients_one_rank = run_distributed(
        train_and_differentiate,
        1,
        [run(pegasus, "one_rank")],
        [run(settings, name + " one_rank") for name, settings in families.items()],
    )[0]
    shared, _ = run_distributed(
        train_and_differentiate,
        2,
        [
            *(run(pegasus, name, **layout, **{SHARED: 2}) for name, layout in layouts.items()),
            changed(half, **{SHARED: 2}),
        ],
        [],
    )[0]
    (resumed,), gradients = run_distributed(
        train_and_differentiate,
        4,
        [changed(half, **{SHARED: 4, "train.steps": 4})],
        [
            run(settings, f"{name} {number}", **layout, **{SHARED: 2})
            for name, settings in families.items()
            for number, layout in enumerate(TWO_BY_TWO)
        ],
    )[0]
    return Trained(
        one_rank[0],
        dict(zip(layouts, shared, strict=False)),
        resumed,
        dict(zip(families, gradients_one_rank, strict=True)),
        {"pegasus": gradients[:2], "bigbird": gradients[2:]},
    )


@pytest.mark.launch
@pytest.mark.parametrize("family", ["pegasus", "bigbird"])
def test_every_gradient_of_two_groups_of_two_equals_that_of_one_rank(
    trained: Trained, family: str
) -> None:
    expected = trained.gradients_one_rank[family]
    assert len(expected) > 40
    largest = max(abs(gradient).max() for gradient in expected.values())
    for found in trained.gradients_shared[family]:
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            # Some gradients cancel: that of a key's bias, and those of next-sentence prediction
            # over pairs of both kinds. fp32 resolves them no better than relative to the largest.
            allowed = max(1e-5 * abs(gradient).max(), EPSILON * largest)
            assert np.abs(found[name] - gradient).max() < allowed, name


@pytest.mark.launch
@pytest.mark.parametrize("layout", FP32)
def test_losses_and_evaluation_equal_those_of_one_rank(trained: Trained, layout: str) -> None:
    assert len(losses(trained.one_rank)) == 4
    for line, same in zip(trained.shared[layout], trained.one_rank, strict=True):
        for name, value in same.items():
            if name.endswith(("loss", "accuracy")) or name in ("step", "tokens"):
                assert line[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.launch
def test_bf16_stays_near_fp32(trained: Trained) -> None:
    # bf16 keeps 8 bits: losses agree to about 2 ** -8.
    assert losses(trained.shared["bf16"]) == pytest.approx(losses(trained.one_rank), rel=4e-3)


@pytest.mark.launch
def test_a_run_resumes_when_more_ranks_share(trained: Trained) -> None:
    assert losses(trained.resumed) == pytest.approx(losses(trained.one_rank), rel=1e-4)
