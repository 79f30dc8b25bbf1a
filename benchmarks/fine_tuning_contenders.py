"""The models that fine_tuning.py compares: those of transformers, unchanged and accelerated."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from bigbird_ds.cpu_products import fast_fp32_products
from bigbird_ds.integrations.transformers import use_block_sparse_attention

TARGET_LENGTH = 128
AGREEMENT = {"fp32": 1e-5, "bf16 autocast": 2e-2, "bf16 weights": 2e-2}  # relative, of losses
SIZES = {  # width, heads, width of the feed-forward network, vocabularies, block size
    "base": (768, 12, 3072, {"bigbird": 50358, "pegasus": 96103}, 64),
    "tiny": (32, 2, 64, {"bigbird": 128, "pegasus": 128}, 16),
}


@dataclass(frozen=True)
class Treatment:
    """How to run the model. ``precision`` is one of ``AGREEMENT``."""

    accelerated: bool
    precision: str
    fast_products: bool = False

    @property
    def label(self) -> str:
        name = "accelerated" if self.accelerated else "transformers"
        return f"{name}, {self.precision}" + (", fast products" if self.fast_products else "")

    def apply(self, model: Any) -> Any:
        """Prepare ``model`` in place, and return it."""
        if self.precision == "bf16 weights":
            model = model.to(torch.bfloat16)
        return use_block_sparse_attention(model) if self.accelerated else model


CONTENDERS = {
    treatment.label: treatment
    for treatment in (
        Treatment(False, "fp32"),
        Treatment(True, "fp32"),
        Treatment(False, "fp32", fast_products=True),
        Treatment(True, "fp32", fast_products=True),
        Treatment(True, "bf16 autocast"),
        Treatment(False, "bf16 weights"),
        Treatment(True, "bf16 weights"),
    )
}


@dataclass(frozen=True)
class Case:
    """One contender on one batch. ``model`` is ``bigbird`` or ``pegasus``."""

    contender: str
    model: str
    size: str
    layers: int
    length: int
    batch: int
    device: str


class Contender:
    """A model that can take steps.

    Args:
        model: a model of transformers, which is modified.
    """

    def __init__(self, case: Case, model: Any) -> None:
        self.case, self.treatment = case, CONTENDERS[case.contender]
        self.device = torch.device(case.device)
        self.model = self.treatment.apply(model).to(self.device).train()
        self.batch = {name: x.to(self.device) for name, x in make_batch(case).items()}

    def step(self) -> None:
        """One forward and backward pass with fresh gradients."""
        self.model.zero_grad(set_to_none=True)
        with self._products():
            self._loss().backward()

    @torch.no_grad()
    def shared_loss(self) -> float:
        """The loss that all contenders must share: in training mode, with seeded dropout."""
        torch.manual_seed(1)
        with self._products():
            return float(self._loss())

    def _loss(self) -> torch.Tensor:
        autocast = self.treatment.precision == "bf16 autocast"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            loss: torch.Tensor = self.model(**self.batch).loss
        return loss

    def _products(self) -> AbstractContextManager[object]:
        if self.treatment.fast_products:
            return fast_fp32_products(self.device)
        return nullcontext()


def build(case: Case) -> Contender:
    """The contender of ``case``, with weights from a fixed seed."""
    return Contender(case, make_model(case))


def make_model(case: Case) -> Any:
    """The model of transformers, with weights from a fixed seed."""
    width, heads, inner, vocabularies, block = SIZES[case.size]
    common: dict[str, Any] = {
        "vocab_size": vocabularies[case.model],
        "block_size": block,
        "max_position_embeddings": max(4096, case.length),
    }
    torch.manual_seed(0)
    if case.model == "pegasus":
        config = transformers.BigBirdPegasusConfig(
            d_model=width,
            encoder_layers=case.layers,
            decoder_layers=case.layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=inner,
            decoder_ffn_dim=inner,
            **common,
        )
        return transformers.BigBirdPegasusForConditionalGeneration(config)
    config = transformers.BigBirdConfig(
        hidden_size=width,
        num_hidden_layers=case.layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        **common,
    )
    return transformers.BigBirdForSequenceClassification(config)


def make_batch(case: Case) -> dict[str, torch.Tensor]:
    """Texts without padding, with classes or targets."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = SIZES[case.size][3][case.model]
    ids = torch.randint(5, vocabulary, (case.batch, case.length), generator=generator)
    if case.model == "pegasus":
        labels = torch.randint(5, vocabulary, (case.batch, TARGET_LENGTH), generator=generator)
    else:
        labels = torch.arange(case.batch) % 2
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
