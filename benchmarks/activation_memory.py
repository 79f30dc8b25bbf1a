"""Memory of a training step with activation checkpointing, counted without a GPU.

    python benchmarks/activation_memory.py                        # up to 1,048,576 tokens
    python benchmarks/activation_memory.py --models base --whole  # feed-forward in one piece
    python benchmarks/activation_memory.py --json result.json

Runs a step of one sequence in bf16 (masked language modeling, 15 % masked, dropout 0.1) on meta
tensors, and counts every live tensor except weights, their gradients and the batch, operator by
operator. Attention is the GPU operator. The other operators are those of a CPU, whose dropout masks
have two bytes per element (one on a GPU). Tensors that an operator allocates and frees internally
are not counted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # selects the GPU operator

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # works without an installed package

import command_line  # noqa: E402
from gpu.sizes import BASE, LARGE  # noqa: E402

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM  # noqa: E402
from bigbird_ds.attention.pattern import forget_patterns  # noqa: E402
from bigbird_ds.models import checkpointing  # noqa: E402
from bigbird_ds.objectives.masking import target_capacity  # noqa: E402
from bigbird_ds.training.planning.live_bytes import LiveBytes  # noqa: E402

MODELS = {"base": BASE, "large": LARGE}
LENGTHS = [4096, 16_384, 65_536, 262_144, 1_048_576]
MASKED = 0.15


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--whole", action="store_true", help="no pieces of a layer")
    arguments = parser.parse_args()
    facts = command_line.begin()
    if arguments.whole:
        checkpointing._TOKENS_AT_ONCE = max(arguments.lengths)
    results = []
    print(f"{'model':<6} {'N':>9} {'kept kB/token':>14} {'peak kB/token':>14} {'peak GB':>8}")
    for name in arguments.models:
        for length in arguments.lengths:
            kept, peak = counted_step(MODELS[name], length)
            results.append(
                {"model": name, "length": length, "kept_bytes": kept, "peak_bytes": peak}
            )
            print(
                f"{name:<6} {length:>9,} {kept / length / 1e3:>14.1f} "
                f"{peak / length / 1e3:>14.1f} {peak / 1e9:>8.2f}",
                flush=True,
            )
    command_line.write_results("activation_memory", arguments, facts, results)
    return 0


def counted_step(sizes: dict[str, Any], length: int) -> tuple[int, int]:
    """Bytes that live between forward and backward, and the peak."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            config = BigBirdConfig(**sizes, max_position_embeddings=length)
            model = BigBirdForMaskedLM(config).train()
            model.gradient_checkpointing_enable()
            return _counted(model, _batch(length))
    finally:
        torch.set_default_dtype(torch.float32)
        forget_patterns()  # meta tensors: their tables have no content


def _counted(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[int, int]:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    parameters = list(model.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    live = LiveBytes([*parameters, *gradients, *batch.values()])
    with live:
        loss = model.loss_sums(**batch)["mlm_loss"]  # type: ignore[operator]
        kept = live.now
        loss.backward()
    return kept, live.peak


def _batch(length: int) -> dict[str, torch.Tensor]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    batch = {name: torch.ones(1, length, dtype=torch.int64) for name in names}
    slots = target_capacity(MASKED, length)
    for name in ("target_positions", "target_ids"):
        batch[name] = torch.zeros(1, slots, dtype=torch.int64)
    return batch


if __name__ == "__main__":
    sys.exit(main())
