"""The sizes that gpu_all.py measures at, and tiny ones that run the same code anywhere."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch

BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}


# the released BigBirdPegasus-large; the defaults of its config are its sizes
PEGASUS: dict[str, Any] = {"use_cache": False}


@dataclass(frozen=True)
class Sizes:
    """What is measured. Lengths and ``tokens`` (a micro-batch) are in tokens.

    Attributes:
        styles: of the patterns that are checked, and whether in training.
        half: the dtype of 16 bits.
        repeats: timed calls of a kernel.
        sweep: warps and stages of a kernel; None: the default.
        cache_bytes, cache_passes: what is read from the cache, and how often.
    """

    block: int = 64
    heads: int = 12
    width: int = 64
    random_blocks: int = 3
    styles: tuple[tuple[str, bool], ...] = (("hf", True), ("hf", False), ("uniform", True))
    half: torch.dtype = torch.bfloat16
    repeats: int = 9
    tokens: int = 65_536
    lengths: tuple[int, ...] = (4096, 16_384, 65_536)
    peer_length: int = 4096
    peer_batches: tuple[int, ...] = (16, 8, 4, 2, 1)
    check_lengths: tuple[int, ...] = (1024, 1536, 4096)
    long_check_lengths: tuple[int, ...] = (16_384, 65_536)
    memory_lengths: tuple[int, ...] = (65_536, 262_144)
    longest: int = 1_048_576
    vocabulary: int = 50_358
    pegasus: dict[str, Any] = field(default_factory=lambda: PEGASUS)
    pegasus_lengths: tuple[int, int] = (3072, 256)
    matrix: int = 8192
    copy_bytes: int = 1 << 32
    cache_bytes: int = 20 << 20
    cache_passes: int = 100
    sweep: tuple[tuple[int, int] | None, ...] = (None, *itertools.product((4, 8), range(1, 8)))
    models: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"base": BASE, "large": LARGE}
    )


_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SMOKE = Sizes(
    block=16,
    heads=1,
    width=16,
    random_blocks=1,
    styles=(("hf", True),),
    half=torch.float16,  # the interpreter multiplies bf16 as if it were integers
    repeats=1,
    tokens=128,
    lengths=(128,),
    peer_length=128,
    peer_batches=(2,),
    check_lengths=(128,),
    long_check_lengths=(),
    memory_lengths=(256,),
    longest=512,
    vocabulary=100,
    pegasus={
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "vocab_size": 100,
        "block_size": 16,
        "num_random_blocks": 1,
        "use_cache": False,
    },
    pegasus_lengths=(128, 16),
    matrix=64,
    copy_bytes=1 << 16,
    cache_bytes=1 << 16,
    cache_passes=2,
    sweep=((4, 2),),
    models={"base": _TINY, "large": _TINY},
)
