"""The peak memory of a rank in one training step, for the tests and the benchmark."""

from __future__ import annotations

from pathlib import Path

import torch

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.training.losses import keep_own_targets
from bigbird_ds.training.ranks.distributed import Ranks


def peak_memory(ranks: Ranks, length: int, hidden_size: int = 128) -> int:
    """Bytes by which a forward and backward pass raises this process's peak memory."""
    config = BigBirdConfig(
        vocab_size=1000,
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=length,
        hidden_dropout_prob=0.0,
    )
    model = BigBirdForMaskedLM(config).train()
    sharing = ranks.sharing_sequences(ranks.world_size)
    if sharing.parallel is not None:
        model.bert.set_sequence_parallel(sharing.parallel)
    one_step(model, sharing, 4096)  # libraries allocate their own buffers at first use
    ranks.barrier()
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = status_bytes("VmRSS")
    one_step(model, sharing, length)
    return status_bytes("VmHWM") - before


def one_step(model: BigBirdForMaskedLM, ranks: Ranks, length: int) -> None:
    """Forward and backward on one sequence, every eighth token a target."""
    ids = torch.randint(5, 1000, (1, length), generator=torch.Generator().manual_seed(0))
    targets = torch.arange(0, length, 8)[None]
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
        "target_positions": targets,
        "target_ids": ids.gather(1, targets),
    }
    if ranks.parallel is not None:
        batch = keep_own_targets(batch, ranks.parallel)
    model.loss_sums(**batch)["mlm_loss"].backward()


def status_bytes(name: str) -> int:
    """A line of /proc/self/status, such as the resident set or its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024
