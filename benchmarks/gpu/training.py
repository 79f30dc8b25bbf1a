"""A whole training step on one GPU: forward, backward and AdamW, as in a run.

Weights are bf16 with fp32 master weights, as under DeepSpeed's bf16. 15 % of the positions are
predicted, and our models compute the prediction head only on those. Everything else is the same for
ours, for ours with dense attention, and for transformers, which gets a copy of our weights.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.models.pretrained import PretrainedModel
from gpu.device import held_bytes, median_seconds, peak_bytes, release, seconds_of
from gpu.report import Report
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
    mask = torch.ones_like(ids)  # as from the data loader

    def loss() -> torch.Tensor:
        sums = model.loss_sums(ids, mask, None, positions, targets)
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
    """Compile each layer as ``train.compile`` does; nothing on a CPU, where it is slow."""
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


@dataclass(frozen=True)
class Contender:
    """A model that takes steps in turn with others.

    Attributes:
        build: maps a batch size to the model and its loss.
        batches: candidates for the sequences per step; the largest that fits is used.
    """

    name: str
    length: int
    build: Callable[[int], tuple[nn.Module, Loss]]
    batches: Sequence[int]


def measure(report: Report, sizes: Sizes) -> None:
    """Tokens per second and peak memory. Contenders of a group alternate; each group includes ours.

    Groups are in order of importance.
    """
    shortest, *rest = sizes.lengths
    for length in (shortest, *reversed(rest)):
        _compare(report, sizes, "base", length, SDPBackend.CUDNN_ATTENTION)
    for length in (sizes.lengths[-1], *sizes.lengths[:-1]):
        _compare(report, sizes, "large", length)
    for length in sizes.lengths:
        _compare(report, sizes, "base", length, SDPBackend.FLASH_ATTENTION)


def _compare(
    report: Report, sizes: Sizes, size: str, length: int, dense: SDPBackend | None = None
) -> None:
    """One group: ours; with ``dense`` also ours with that attention; at the shortest length also
    transformers and, in the first group, our uncompiled layers.

    Graphs of other groups are reset: the dense attention kernel is part of a graph, but selecting
    another does not make torch recompile.
    """
    torch._dynamo.reset()
    batches = (max(1, sizes.tokens // length),)

    def own(is_dense: bool, compiled: bool) -> Callable[[int], tuple[nn.Module, Loss]]:
        return lambda batch: ours(report, sizes, size, length, batch, is_dense, compiled)

    def own_dense(batch: int) -> tuple[nn.Module, Loss]:
        model, loss = own(True, True)(batch)

        def loss_with_chosen_kernel() -> torch.Tensor:
            with sdpa_kernel([dense]):
                return loss()

        return model, loss_with_chosen_kernel

    group = [Contender(f"{size} ours", length, own(False, True), batches)]
    if dense is not SDPBackend.FLASH_ATTENTION:
        group.append(Contender(f"{size} ours, not compiled", length, own(False, False), batches))
        if length == sizes.peer_length:
            name = f"{size} transformers block_sparse"
            build = functools.partial(peer, report, sizes, size, length)
            group.append(Contender(name, length, build, sizes.peer_batches))
    if dense is not None:
        name = f"{size} dense {dense.name.split('_')[0].lower()}"
        group.append(Contender(name, length, own_dense, batches))
    take_steps(report, group)


def take_steps(report: Report, group: Sequence[Contender]) -> None:
    """Build all contenders, then let them alternate."""
    steps: dict[str, tuple[str, int, Callable[[], None]]] = {}
    for contender in group:
        for batch in contender.batches:
            setting = f"B {batch}, N {contender.length:,}"

            def work(contender=contender, batch=batch, setting=setting) -> None:
                before = held_bytes(report.device)
                step = optimized(*contender.build(batch))
                for _ in range(3):
                    step()
                peak = peak_bytes(report.device) - before
                report.add(contender.name, setting, peak / 2**30, "GiB peak")
                steps[contender.name] = (setting, batch * contender.length, step)

            report.attempt(contender.name, setting, work)
            if report.records[-1].note != "out of memory":
                break
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(5):
        if turn and not report.has_time():
            break
        for name, (setting, _, step) in list(steps.items()):
            try:
                times[name].append(seconds_of(step, report.device))
            except torch.OutOfMemoryError:
                report.add(name, setting, None, note="out of memory next to the others")
                del steps[name], step
                release(report.device)
    for name, (setting, tokens, _) in steps.items():
        seconds = statistics.median(times[name])
        report.add(name, setting, tokens / seconds, "tokens/s", f"{len(times[name])} steps")


def measure_memory(report: Report, sizes: Sizes) -> None:
    """Bytes per token of a step besides weights and gradients, including the head's scores."""
    first, *longer = sizes.memory_lengths
    cases = [(first, True, False), (first, False, True), (first, True, True)]
    cases += [(length, True, True) for length in longer]
    for size in sizes.models:
        for length, checkpointing, compiled in cases:
            name = f"{size} ours, " + ("checkpointing" if checkpointing else "everything kept")
            setting = f"N {length:,}" + ("" if compiled else ", not compiled")

            def work(
                size=size,
                length=length,
                checkpointing=checkpointing,
                compiled=compiled,
                name=name,
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
                report.add(name, setting, added / length / 1e3, "kB/token")

            report.attempt(name, setting, work)


def measure_longest(report: Report, sizes: Sizes) -> None:
    """One sequence of ``sizes.longest`` tokens, base, with activation checkpointing."""
    setting = f"B 1, N {sizes.longest:,}, checkpointing"

    def work() -> None:
        model, loss = ours(report, sizes, "base", sizes.longest, 1, dense=False, compiled=False)
        model.gradient_checkpointing_enable()
        step = optimized(model, loss)
        seconds = median_seconds(step, report.device, repeats=1, warm_up=1)
        report.add("base ours", setting, sizes.longest / seconds, "tokens/s")
        report.add("base ours", setting, peak_bytes(report.device) / 2**30, "GiB peak")
        report.add("base ours", setting, float(loss().detach()), "loss")

    report.attempt("base ours", setting, work)


def optimized(model: nn.Module, loss: Loss) -> Callable[[], None]:
    """A step: loss, gradients and optimizer."""
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
