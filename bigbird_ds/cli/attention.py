"""``bigbird-ds attention``: draw a block-sparse pattern, or show the reach of the styles."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seq-len", type=int, required=True, help="tokens")
    parser.add_argument(
        "--out", type=Path, default=None, help="PNG file to write; --reach does without"
    )
    parser.add_argument("--heads", type=int, default=12, help="attention heads")
    parser.add_argument("--block-size", type=int, default=64, help="tokens per block")
    parser.add_argument(
        "--random-blocks", type=int, default=3, help="random blocks per query block"
    )
    parser.add_argument(
        "--style",
        default=None,
        help="random_style: hf, hf_eval, google, uniform or relay (default: hf; all with --reach)",
    )
    parser.add_argument(
        "--layer", type=int, default=None, help="layer index; it seeds the random blocks"
    )
    parser.add_argument(
        "--eval", action="store_true", help="take the evaluation pattern (it differs for hf)"
    )
    parser.add_argument(
        "--max-positions", type=int, default=4096, help="the model's max_position_embeddings"
    )
    parser.add_argument(
        "--reach",
        action="store_true",
        help="print the share of far block pairs that each style connects, by number of layers; "
        "with --out, draw it too",
    )
    parser.add_argument("--layers", type=int, default=None, help="layers of --reach (default: 12)")


def run(arguments: argparse.Namespace) -> int:
    _check_effect(arguments)
    if arguments.reach:
        _show_reach(arguments)
    else:
        _draw(arguments)
    _say_where_full(arguments)
    if arguments.out is not None:
        print(f"wrote {arguments.out}")
    return 0


def _check_effect(arguments: argparse.Namespace) -> None:
    """Reject options that the other of the two outputs has."""
    from bigbird_ds.errors import ConfigError

    if arguments.reach:
        if arguments.layer is not None:
            raise ConfigError(
                "--layer has no effect with --reach",
                seen=f"--layer {arguments.layer}",
                needed="--layers N, to follow the layers 0 to N - 1",
                change="--layer",
            )
        if arguments.layers is not None and arguments.layers < 1:
            raise ConfigError(
                "the number of layers is out of range",
                seen=f"--layers {arguments.layers}",
                needed="at least 1",
                change="--layers",
            )
        return
    if arguments.layers is not None:
        raise ConfigError(
            "--layers has no effect without --reach",
            seen=f"--layers {arguments.layers}",
            needed="--reach, or --layer for one layer's pattern",
            change="--layers",
        )
    if arguments.out is None:
        raise ConfigError(
            "there is no file to draw the pattern to",
            seen="neither --out nor --reach",
            needed="--out FILE.png, or --reach for a table",
            change="--out",
        )


def _draw(arguments: argparse.Namespace) -> None:
    from bigbird_ds.attention.draw import draw_pattern
    from bigbird_ds.attention.pattern import BlockPattern

    pattern = BlockPattern.build(
        arguments.seq_len,
        num_heads=arguments.heads,
        block_size=arguments.block_size,
        num_random_blocks=arguments.random_blocks,
        style="hf" if arguments.style is None else arguments.style,
        layer=arguments.layer or 0,
        training=not arguments.eval,
        max_positions=arguments.max_positions,
    )
    if drawn := draw_pattern(pattern, arguments.out):
        print(f"drew the first {drawn} of {arguments.heads} heads, which differ")


def _show_reach(arguments: argparse.Namespace) -> None:
    from bigbird_ds.attention.draw import draw_reach
    from bigbird_ds.attention.reach import MAX_SOURCES, reach
    from bigbird_ds.attention.styles import STYLES

    layers = arguments.layers or 12
    shares = {
        style: reach(
            style,
            arguments.seq_len,
            layers,
            num_heads=arguments.heads,
            block_size=arguments.block_size,
            num_random_blocks=arguments.random_blocks,
            training=not arguments.eval,
            max_positions=arguments.max_positions,
        )
        for style in ([arguments.style] if arguments.style is not None else STYLES)
    }
    blocks = arguments.seq_len // arguments.block_size
    title = f"{arguments.seq_len:,} tokens in {blocks:,} blocks of {arguments.block_size}"
    print(f"share of far block pairs connected, by layers; {title}")
    width = max(len(style) for style in ("layers", *shares)) + 1
    print(f"{'layers':<{width}}" + "".join(f"{layer + 1:>6}" for layer in range(layers)))
    for style, values in shares.items():
        print(f"{style:<{width}}" + "".join(f"{value:>6.2f}" for value in values))
    if blocks - 2 > MAX_SOURCES:
        print(f"from a sample: {MAX_SOURCES:,} of {blocks:,} source blocks")
    if arguments.out is not None:
        draw_reach(shares, title, arguments.out)


def _say_where_full(arguments: argparse.Namespace) -> None:
    from bigbird_ds.models.bigbird.configuration import BigBirdConfig

    config = BigBirdConfig(
        block_size=arguments.block_size, num_random_blocks=arguments.random_blocks
    )
    if arguments.seq_len <= (limit := config.max_full_attention_tokens):
        print(f"a model computes full attention up to {limit:,} tokens, not this pattern")
