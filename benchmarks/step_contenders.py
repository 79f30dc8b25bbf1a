"""The models that training_step.py compares: equal weights, equal input, equal loss.

Legend: B = batch, N = sequence length, M = predicted positions a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from gpu.sizes import BASE, LARGE
from torch import nn

from bigbird_ds import BigBirdConfig, BigBirdForPreTraining
from bigbird_ds.cpu_products import fast_fp32_products
from bigbird_ds.training.flops import flops_per_token

OURS, DENSE, TRANSFORMERS = "ours", "ours dense", "transformers"
# with the fp32 products that our launcher chooses on a CPU; a user of transformers has torch's own
TRANSFORMERS_FAST = "transformers fast"
OURS_PLAIN = "ours plain"  # with torch's own
CONTENDERS = (OURS, DENSE, TRANSFORMERS, OURS_PLAIN, TRANSFORMERS_FAST)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MODELS: dict[str, dict[str, Any]] = {
    "base": BASE,
    "large": LARGE,
    # for the growth with the length, which the width does not change
    "narrow": {
        "hidden_size": 128,
        "num_attention_heads": 2,
        "intermediate_size": 512,
        "vocab_size": 5000,
    },
    "tiny": {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 128,
        "block_size": 16,
    },
}
MASKED = 0.15
DROPOUT = 0.1


@dataclass(frozen=True)
class Case:
    """One model on one batch. ``name`` is one of ``CONTENDERS``, ``dtype`` of ``DTYPES``."""

    name: str
    dtype: str
    model: str
    layers: int
    length: int
    batch: int
    device: str
    checkpointing: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, {self.dtype}"

    @property
    def is_transformers(self) -> bool:
        return self.name in (TRANSFORMERS, TRANSFORMERS_FAST)

    @property
    def flops(self) -> float:
        """Products of one step that this model needs, with the head on the masked positions."""
        targets = int(MASKED * self.length) / self.length
        return self.batch * self.length * flops_per_token(self.config(), self.length, targets)

    def config(self) -> BigBirdConfig:
        fields: dict[str, Any] = {
            **MODELS[self.model],
            "num_hidden_layers": self.layers,
            "max_position_embeddings": max(4096, self.length),
            "attention_type": "original_full" if self.name == DENSE else "block_sparse",
            # transformers has none in block-sparse attention; dense goes without it too
            "attention_probs_dropout_prob": 0.0,
            "hidden_dropout_prob": DROPOUT,
        }
        return BigBirdConfig(**fields)


@dataclass(frozen=True)
class Contender:
    """A model ready to train."""

    case: Case
    model: nn.Module
    loss: Callable[[], torch.Tensor]

    def step(self) -> None:
        """One forward and backward pass; the gradients are new."""
        self.model.zero_grad(set_to_none=True)
        with self.products():
            self.loss().backward()

    def products(self) -> AbstractContextManager[object]:
        """The library that computes the matrix products."""
        if self.case.name in (TRANSFORMERS, OURS_PLAIN):
            return nullcontext()
        return fast_fp32_products(torch.device(self.case.device))

    @torch.no_grad()
    def loss_without_dropout(self) -> float:
        """The loss that all contenders share, with the pattern of training."""
        dropouts = [m for m in self.model.modules() if isinstance(m, nn.Dropout)]
        for dropout in dropouts:
            dropout.p = 0.0
        with self.products():
            loss = float(self.loss())
        for dropout in dropouts:
            dropout.p = DROPOUT
        return loss


def build(case: Case) -> Contender:
    """The contender of ``case``, its weights drawn from a fixed seed."""
    torch.manual_seed(0)
    model: nn.Module = BigBirdForPreTraining(case.config())
    if case.is_transformers:
        model = _twin(case, model)
    model = model.to(case.device, DTYPES[case.dtype]).train()
    if case.checkpointing:
        model.gradient_checkpointing_enable()  # type: ignore[operator]
    make = _their_loss if case.is_transformers else _our_loss
    return Contender(case, model, make(model, *random_batch(case)))


def random_batch(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids (B, N), predicted positions (B, M) and their ids (B, M), labels of pairs (B,)."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = case.config().vocab_size
    ids = torch.randint(5, vocabulary, (case.batch, case.length), generator=generator)
    number = int(MASKED * case.length)
    order = torch.rand(case.batch, case.length, generator=generator).argsort(1)
    positions = order[:, :number].sort(1).values
    targets = torch.randint(5, vocabulary, (case.batch, number), generator=generator)
    pairs = torch.arange(case.batch) % 2
    ids, positions, targets, pairs = (x.to(case.device) for x in (ids, positions, targets, pairs))
    return ids, positions, targets, pairs


def _twin(case: Case, ours: nn.Module) -> nn.Module:
    import transformers

    config = transformers.BigBirdConfig(**case.config().to_dict())
    twin = transformers.BigBirdForPreTraining(config)
    twin.load_state_dict(ours.state_dict())
    return twin


def _our_loss(
    model: Any,
    ids: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor,
    pairs: torch.Tensor,
) -> Callable[[], torch.Tensor]:
    def loss() -> torch.Tensor:
        mask = torch.ones_like(ids)
        sums = model.loss_sums(ids, mask, torch.zeros_like(ids), positions, targets, pairs)
        return sums["mlm_loss"] / targets.numel() + sums["nsp_loss"] / pairs.numel()

    return loss


def _their_loss(
    model: Any,
    ids: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor,
    pairs: torch.Tensor,
) -> Callable[[], torch.Tensor]:
    labels = torch.full_like(ids, -100).scatter_(1, positions, targets)

    def loss() -> torch.Tensor:
        return model(
            ids, attention_mask=torch.ones_like(ids), labels=labels, next_sentence_label=pairs
        ).loss

    return loss
