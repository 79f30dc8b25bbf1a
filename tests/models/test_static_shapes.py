"""No part of a training step reads the values of tensors: on a GPU the host would have to wait.

The steps run on fake tensors, which have shapes but no values: reading a value, or creating a
tensor whose size depends on values (boolean indices, nonzero), is an error there.
"""

from __future__ import annotations

import pytest
import torch
from support.tiny_models import tiny_bigbird, tiny_pegasus
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from bigbird_ds import (
    BigBirdForMaskedLM,
    BigBirdForPreTraining,
    BigBirdPegasusForConditionalGeneration,
)
from bigbird_ds.objectives import OBJECTIVES
from bigbird_ds.training.losses import StepCounts, StepLoss
from bigbird_ds.training.metrics import SumMeter


def integers(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.int64)


def model_and_batch(name: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    batch = {"input_ids": integers(2, 128), "attention_mask": integers(2, 128)}
    targets = {"target_positions": integers(2, 20), "target_ids": integers(2, 20)}
    if name == "pegasus":
        model: torch.nn.Module = BigBirdPegasusForConditionalGeneration(tiny_pegasus())
        return model, batch | targets | {"labels": integers(2, 16)}
    batch |= targets | {"token_type_ids": integers(2, 128)}
    if name == "mlm":
        return BigBirdForMaskedLM(tiny_bigbird()), batch
    return BigBirdForPreTraining(tiny_bigbird()), batch | {"next_sentence_label": integers(2)}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["mlm", "mlm_nsp", "pegasus"])
def test_a_step_reads_no_value_and_makes_no_shape_from_values(
    name: str, checkpointing: bool
) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, batch = model_and_batch(name)
        if checkpointing:
            model.gradient_checkpointing_enable()  # type: ignore[operator]
        parts = OBJECTIVES["gap_sentences" if name == "pegasus" else name].losses
        counts = StepCounts.of(parts, [*(32.0 for _ in parts), 256.0])
        sums = StepLoss(model.train(), parts)(batch, counts, 1.0)
        sums["loss"].backward()
        SumMeter().add(sums)
        assert all(p.grad is not None for n, p in model.named_parameters() if "embed" in n)


def test_what_would_make_the_host_wait_is_an_error_on_fake_tensors() -> None:
    with FakeTensorMode():
        x = torch.ones(4)
        with pytest.raises(DynamicOutputShapeException):
            x[x > 0]
        with pytest.raises(DataDependentOutputException):
            x.sum().item()
