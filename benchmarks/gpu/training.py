"""A whole training step on one GPU: forward, backward and AdamW, as in a run.

Weights are bf16 with fp32 master weights, as under DeepSpeed's bf16. 15 % of the positions are
predicted, and our models compute the prediction head only on those. Everything else is the same for
ours, for ours with dense attention, and for transformers, which gets a copy of our weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.models.pretrained import PretrainedModel
from gpu.report import Report, median_seconds, peak_bytes, release
from gpu.sizes import Sizes

MASKED = 0.15
Loss = Callable[[], torch.Tensor]


def ours(
    report: Report, sizes: Sizes, size: str, length: int, batch: int, dense: bool, compiled: bool
) -> tuple[nn.Module, Loss]:
    """Our model and its loss on a random batch, block-sparse or with dense attention."""
    model = BigBirdForMaskedLM(_config(sizes, size, length, dense)).to(report.device)
    model = model.bfloat16().train()
    if compiled:
        compile_layers(model)
    ids, positions, targets = _batch(report.device, sizes, length, batch)

    def loss() -> torch.Tensor:
        sums = model.loss_sums(ids, None, None, positions, targets)
        return sums["mlm_loss"] / targets.numel()

    return model, loss


def peer(
    report: Report, sizes: Sizes, size: str, length: int, batch: int
) -> tuple[nn.Module, Loss]:
    """The block-sparse model of transformers, with the same loss."""
    import transformers

    config = _config(sizes, size, length, dense=False)
    twin = transformers.BigBirdForMaskedLM(transformers.BigBirdConfig(**config.to_dict()))
    lacking = twin.load_state_dict(BigBirdForMaskedLM(config).state_dict(), strict=False)
    assert not set(lacking.missing_keys) & dict(twin.named_parameters()).keys()
    model = twin.to(report.device).bfloat16().train()
    ids, positions, targets = _batch(report.device, sizes, length, batch)
    labels = torch.full_like(ids, -100).scatter_(1, positions, targets)
    mask = torch.ones_like(ids)
    return model, lambda: model(ids, attention_mask=mask, labels=labels).loss


def compile_layers(model: PretrainedModel) -> None:
    """Compile each layer as ``train.compile`` does; nothing on a CPU, where it is slow.

    Earlier graphs are reset: the dense attention kernel is part of a graph, but selecting another
    does not make torch recompile.
    """
    torch._dynamo.reset()
    if model.device.type == "cuda":
        model.compile_layers()


class Optimizer:
    """Fused AdamW on fp32 master weights of bf16 weights."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.masters = [p.detach().float() for p in self.weights]
        fused = self.weights[0].is_cuda
        self.adamw = torch.optim.AdamW(self.masters, lr=1e-5, fused=fused)

    @torch.no_grad()
    def step(self) -> None:
        for master, weight in zip(self.masters, self.weights, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        self.adamw.step()
        self.adamw.zero_grad()
        torch._foreach_copy_(self.weights, self.masters)


def measure(report: Report, sizes: Sizes) -> None:
    """Tokens per second and peak memory; ours first, to be measured even if time runs out."""
    for size in sizes.models:
        for length in sizes.lengths:
            batch = max(1, sizes.tokens // length)
            for compiled in (False, True):  # uncompiled first: there is a result in any case
                name = f"{size} ours" + ("" if compiled else ", not compiled")
                _attempt_step(report, sizes, name, length, batch, size, compiled=compiled)
    _attempt_peer(report, sizes, "base")
    for length in sizes.lengths:
        batch = max(1, sizes.tokens // length)
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            name = f"base ours, dense {backend.name.split('_')[0].lower()}"
            _attempt_step(report, sizes, name, length, batch, "base", dense=backend)
    _attempt_peer(report, sizes, "large")


def measure_memory(report: Report, sizes: Sizes) -> None:
    """Bytes per token of a step besides weights and gradients, including the head's scores."""
    first, *longer = sizes.memory_lengths
    cases = [(first, True, False), (first, False, True), (first, True, True)]
    cases += [(length, True, True) for length in longer]
    for size in sizes.models:
        for length, checkpointing, compiled in cases:
            setting = f"N {length:,}, " + ("checkpointing" if checkpointing else "everything kept")
            setting += "" if compiled else ", not compiled"

            def work(
                size=size,
                length=length,
                checkpointing=checkpointing,
                compiled=compiled,
                setting=setting,
            ) -> None:
                model, loss = ours(report, sizes, size, length, 1, dense=False, compiled=compiled)
                if checkpointing:
                    model.gradient_checkpointing_enable()
                loss().backward()  # the gradients stay allocated, and count as resident
                release(report.device)
                resident = peak_bytes(report.device)
                loss().backward()
                added = peak_bytes(report.device) - resident
                report.add(f"{size} ours", setting, added / length / 1e3, "kB/token")

            report.attempt(f"{size} ours", setting, work)


def measure_longest(report: Report, sizes: Sizes) -> None:
    """One sequence of ``sizes.longest`` tokens, base, with activation checkpointing."""
    setting = f"B 1, N {sizes.longest:,}, checkpointing"

    def work() -> None:
        model, loss = ours(report, sizes, "base", sizes.longest, 1, dense=False, compiled=False)
        model.gradient_checkpointing_enable()
        step = _step(model, loss)
        seconds = median_seconds(step, report.device, repeats=2, warm_up=1)
        report.add("base ours", setting, sizes.longest / seconds, "tokens/s")
        report.add("base ours", setting, peak_bytes(report.device) / 2**30, "GiB peak")
        report.add("base ours", setting, float(loss().detach()), "loss")

    report.attempt("base ours", setting, work)


def _attempt_step(
    report: Report,
    sizes: Sizes,
    name: str,
    length: int,
    batch: int,
    size: str,
    compiled: bool = True,
    dense: SDPBackend | None = None,
) -> None:
    setting = f"B {batch}, N {length:,}"

    def work() -> None:
        chosen = contextlib.nullcontext() if dense is None else sdpa_kernel([dense])
        with chosen:
            model, loss = ours(report, sizes, size, length, batch, dense is not None, compiled)
            add_step(report, name, setting, batch * length, model, loss)

    report.attempt(name, setting, work)


def _attempt_peer(report: Report, sizes: Sizes, size: str) -> None:
    """The largest batch that fits, as a user would choose it."""
    name, length = f"{size} transformers block_sparse", sizes.peer_length
    for batch in sizes.peer_batches:
        setting = f"B {batch}, N {length:,}"

        def work(batch=batch, setting=setting) -> None:
            model, loss = peer(report, sizes, size, length, batch)
            add_step(report, name, setting, batch * length, model, loss)

        report.attempt(name, setting, work)
        if report.records[-1].note != "out of memory":
            return


def add_step(
    report: Report, name: str, setting: str, tokens: int, model: nn.Module, loss: Loss
) -> None:
    seconds = median_seconds(_step(model, loss), report.device, repeats=5, warm_up=3)
    report.add(name, setting, tokens / seconds, "tokens/s")
    report.add(name, setting, peak_bytes(report.device) / 2**30, "GiB peak")


def _step(model: nn.Module, loss: Loss) -> Callable[[], None]:
    optimizer = Optimizer(model)

    def step() -> None:
        loss().backward()
        optimizer.step()

    return step


def _config(sizes: Sizes, size: str, length: int, dense: bool) -> BigBirdConfig:
    fields: dict[str, Any] = {
        **sizes.models[size],
        "vocab_size": sizes.vocabulary,
        "block_size": sizes.block,
        "num_random_blocks": sizes.random_blocks,
        "max_position_embeddings": max(length, sizes.peer_length),
        "attention_type": "original_full" if dense else "block_sparse",
        "attention_probs_dropout_prob": 0.0,  # the fastest dense attention
    }
    return BigBirdConfig(**fields)


def _batch(
    device: torch.device, sizes: Sizes, length: int, batch: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids (B, N), and positions and ids of the targets (B, M)."""
    generator = torch.Generator().manual_seed(0)
    number = int(MASKED * length)
    ids = torch.randint(5, sizes.vocabulary, (batch, length), generator=generator)
    order = torch.rand(batch, length, generator=generator).argsort(1)
    positions = order[:, :number].sort(1).values
    targets = torch.randint(5, sizes.vocabulary, (batch, number), generator=generator)
    return ids.to(device), positions.to(device), targets.to(device)
