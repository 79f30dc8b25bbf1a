"""A training step of BigBirdPegasus with a long input and a short target: ours and transformers.

Both get the same weights and the same batch; each runs the largest batch that fits.
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from bigbird_ds import BigBirdPegasusConfig, BigBirdPegasusForConditionalGeneration
from gpu.report import Report
from gpu.sizes import Sizes
from gpu.training import Contender, Loss, compile_layers, take_steps


def measure(report: Report, sizes: Sizes) -> None:
    """Tokens of input and target per second, and peak memory; contenders alternate."""
    length = sum(sizes.pegasus_lengths)
    group = [
        Contender(f"pegasus-large {name}", length, build, sizes.peer_batches)
        for name, build in (
            ("ours", functools.partial(ours, report, sizes)),
            ("transformers", functools.partial(peer, report, sizes)),
        )
    ]
    take_steps(report, group)


def ours(report: Report, sizes: Sizes, batch: int) -> tuple[nn.Module, Loss]:
    """Our model and its loss."""
    model = BigBirdPegasusForConditionalGeneration(_config(sizes)).to(report.device)
    model = model.bfloat16().train()
    compile_layers(model)
    ids, labels = _batch(report.device, sizes, batch)
    mask = torch.ones_like(ids)

    def loss() -> torch.Tensor:
        return model.loss_sums(ids, mask, labels)["target_loss"] / labels.numel()

    return model, loss


def peer(report: Report, sizes: Sizes, batch: int) -> tuple[nn.Module, Loss]:
    """The model of transformers, with the same weights."""
    import transformers

    config = _config(sizes)
    twin = transformers.BigBirdPegasusForConditionalGeneration(
        transformers.BigBirdPegasusConfig(**config.to_dict())
    )
    lacking = twin.load_state_dict(
        BigBirdPegasusForConditionalGeneration(config).state_dict(), strict=False
    )
    assert not set(lacking.missing_keys) & dict(twin.named_parameters()).keys()
    model = twin.to(report.device).bfloat16().train()
    ids, labels = _batch(report.device, sizes, batch)
    mask = torch.ones_like(ids)
    return model, lambda: model(ids, attention_mask=mask, labels=labels).loss


def _config(sizes: Sizes) -> BigBirdPegasusConfig:
    return BigBirdPegasusConfig(**sizes.pegasus)


def _batch(device: torch.device, sizes: Sizes, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, S) and labels (B, T)."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = _config(sizes).vocab_size
    ids, labels = (
        torch.randint(5, vocabulary, (batch, length), generator=generator)
        for length in sizes.pegasus_lengths
    )
    return ids.to(device), labels.to(device)
