"""``bigbird-ds attention``: draw a block-sparse pattern."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seq-len", type=int, required=True, help="tokens")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--heads", type=int, default=12, help="attention heads")
    parser.add_argument("--block-size", type=int, default=64, help="tokens per block")
    parser.add_argument(
        "--random-blocks", type=int, default=3, help="random blocks per query block"
    )
    parser.add_argument(
        "--style", default="hf", help="random_style: hf, hf_eval, google or uniform"
    )
    parser.add_argument(
        "--layer", type=int, default=0, help="layer index; it seeds the random blocks"
    )
    parser.add_argument(
        "--eval", action="store_true", help="draw the evaluation pattern (it differs for hf)"
    )
    parser.add_argument(
        "--max-positions", type=int, default=4096, help="the model's max_position_embeddings"
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds.attention.draw import draw_pattern
    from bigbird_ds.attention.pattern import BlockPattern
    from bigbird_ds.models.bigbird.configuration import BigBirdConfig

    pattern = BlockPattern.build(
        arguments.seq_len,
        num_heads=arguments.heads,
        block_size=arguments.block_size,
        num_random_blocks=arguments.random_blocks,
        style=arguments.style,
        layer=arguments.layer,
        training=not arguments.eval,
        max_positions=arguments.max_positions,
    )
    drawn = draw_pattern(pattern, arguments.out)
    config = BigBirdConfig(
        block_size=arguments.block_size, num_random_blocks=arguments.random_blocks
    )
    if arguments.seq_len <= (limit := config.max_full_attention_tokens):
        print(f"a model computes full attention up to {limit:,} tokens, not this pattern")
    if drawn:
        print(f"drew the first {drawn} of {arguments.heads} heads, which differ")
    print(f"wrote {arguments.out}")
    return 0
