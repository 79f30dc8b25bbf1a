"""No part of a training step looks at the values of tensors: on a GPU the host would wait for them.

The steps run on fake tensors, which have shapes and no values: reading a value, or making a tensor
whose size follows from values (boolean indices, nonzero), is an error there.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from bigbird_ds import (
    BigBirdConfig,
    BigBirdForMaskedLM,
    BigBirdForPreTraining,
    BigBirdPegasusConfig,
    BigBirdPegasusForConditionalGeneration,
)
from bigbird_ds.training.losses import StepCounts, StepLoss
from bigbird_ds.training.metrics import SumMeter

SIZES = {"vocab_size": 50, "block_size": 16, "num_random_blocks": 1}


def integers(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.int64)


def model_and_batch(name: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    batch = {"input_ids": integers(2, 128), "attention_mask": integers(2, 128)}
    targets = {"target_positions": integers(2, 20), "target_ids": integers(2, 20)}
    if name == "pegasus":
        config: Any = BigBirdPegasusConfig(
            **SIZES,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
        )
        model: torch.nn.Module = BigBirdPegasusForConditionalGeneration(config)
        return model, batch | targets | {"labels": integers(2, 16)}
    config = BigBirdConfig(
        **SIZES,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    batch |= targets | {"token_type_ids": integers(2, 128)}
    if name == "mlm":
        return BigBirdForMaskedLM(config), batch
    return BigBirdForPreTraining(config), batch | {"next_sentence_label": integers(2)}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["mlm", "mlm_nsp", "pegasus"])
def test_a_step_reads_no_value_and_makes_no_shape_from_values(
    name: str, checkpointing: bool
) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, batch = model_and_batch(name)
        if checkpointing:
            model.gradient_checkpointing_enable()  # type: ignore[operator]
        counts = StepCounts(
            mlm_targets=40.0, nsp_samples=2.0, target_tokens=32.0, tokens=256.0, stop_requests=0.0
        )
        sums = StepLoss(model.train())(batch, counts, 1.0)
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
