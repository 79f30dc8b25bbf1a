"""Sequence parallelism gives the loss and every gradient of one rank, for both families."""

from __future__ import annotations

import pytest
from support.distributed import run_distributed
from support.parallel_models import (
    SharedModelCase,
    model_errors,
    refusals,
)

CASES = [
    SharedModelCase("bigbird"),
    SharedModelCase("bigbird", checkpointed=True, padding=9),
    SharedModelCase("pegasus", target_length=12),
    # 11 is not a multiple of any number of ranks here
    SharedModelCase("pegasus", target_length=11, padding=13),
    SharedModelCase("pegasus", target_length=11, padding=13, checkpointed=True),
    SharedModelCase("pegasus", target_length=11, padding=13, checkpointed=True, selective=True),
    SharedModelCase("pegasus", target_length=48, use_bias=True, masks_tokens=False),
]


@pytest.mark.launch
def test_loss_counts_and_gradients_equal_those_of_one_rank() -> None:
    for found in run_distributed(model_errors, 4, [2, 3, 4], CASES):
        for (ranks, case), errors in found:
            assert max(errors.values()) < 1e-9, (ranks, case, errors)


def test_what_ranks_cannot_share_is_refused() -> None:
    messages = refusals()
    assert "needs block-sparse attention" in messages["short"]
    assert "needs whole blocks" in messages["half a block"]
    assert "not a multiple of the sequence-parallel size" in messages["odd blocks"]
    assert "attention weights are not available" in messages["weights"]
    assert "has no key-value cache" in messages["cache"]
