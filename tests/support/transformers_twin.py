"""The reference for parity: a transformers model with random weights, and its folder on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

TINY = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    # many times the usual, so that attention is far from uniform and errors show
    "initializer_range": 0.15,
}


def save_twin(folder: Path, class_name: str, **settings: Any) -> Path:
    """A BigBird of :func:`save_random`, ``TINY`` but for ``settings``."""
    return save_random(folder, class_name, transformers.BigBirdConfig(**{**TINY, **settings}))


def save_random(folder: Path, class_name: str, config: transformers.PretrainedConfig) -> Path:
    """Save a transformers model with random weights, biases and norms; return the folder."""
    torch.manual_seed(3)
    model = getattr(transformers, class_name)(config)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("bias") or "norm" in name.lower():
                tensor.add_(0.1 * torch.randn_like(tensor))
    model.save_pretrained(folder)
    return folder


def load_twin(folder: Path, class_name: str, **settings: Any) -> torch.nn.Module:
    """A fresh transformers model: its fallback to full attention is sticky, so one per length."""
    return getattr(transformers, class_name).from_pretrained(folder, **settings)


def random_batch(batch: int, seq_len: int, padding: int = 0, seed: int = 0) -> dict[str, Any]:
    """Token ids, types and a mask whose last sample ends in ``padding`` padding tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, TINY["vocab_size"], (batch, seq_len), generator=generator)
    mask = torch.ones(batch, seq_len, dtype=torch.long)
    if padding:
        ids[-1, -padding:] = 0
        mask[-1, -padding:] = 0
    types = torch.randint(0, 2, (batch, seq_len), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def assert_same_loss_and_gradients(
    ours: torch.nn.Module,
    theirs: torch.nn.Module,
    found: Any,
    expected: Any,
    unseen: tuple[str, ...] = (),
) -> None:
    """Differentiate the outputs ``found`` and ``expected``."""
    assert_close(found.loss, expected.loss)
    expected.loss.backward()
    found.loss.backward()
    assert_same_gradients(ours, theirs, unseen)


def assert_same_gradients(
    ours: torch.nn.Module, theirs: torch.nn.Module, unseen: tuple[str, ...] = ()
) -> None:
    """Compare every gradient by name, within 1e-4 relative.

    A bias that shifts all scores of a softmax equally has no gradient in exact arithmetic: the key
    biases, and those named in ``unseen``. Their error is relative to the gradient of their weight.
    """
    theirs_by_name = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        twin = theirs_by_name[name].grad
        if parameter.grad is None:  # not used; transformers may have used it for padding
            assert twin is None or (twin == 0).all(), name
            continue
        assert twin is not None, name
        scale = twin.norm()
        if name.endswith(("self.key.bias", *unseen)):
            scale = theirs_by_name[name.replace("bias", "weight")].grad.norm()
        assert (parameter.grad - twin).norm() <= 1e-4 * scale, name
