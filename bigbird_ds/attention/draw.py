"""Plots of patterns: which key blocks each query block reads how often, and the reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bigbird_ds.attention.pattern import BlockPattern
from bigbird_ds.errors import ConfigError
from bigbird_ds.plotting import pyplot, save_figure

MAX_DRAWN_BLOCKS = 1024  # more blocks are not discernible
MAX_DRAWN_HEADS = 4


def count_matrix(pattern: BlockPattern, head: int) -> np.ndarray:
    """(n, n) int: how often query block i reads key block j. Only for plots and tests."""
    n = pattern.num_blocks
    counts = np.zeros((n, n), dtype=np.int64)
    counts[[0, n - 1]] = 1
    table = head if len(pattern.key_blocks) > 1 else 0
    rows = np.arange(1, n - 1)[:, None]
    np.add.at(counts, (rows, pattern.key_blocks[table]), pattern.key_counts[table])
    return counts


def draw_pattern(pattern: BlockPattern, target: Path) -> int | None:
    """Write a PNG with one panel per head (the first four; one if all heads agree).

    Returns:
        The number of heads drawn if there are more that differ, else None.

    Raises:
        ConfigError: too many blocks, matplotlib is not installed, or ``target`` cannot be written.
    """
    if pattern.num_blocks > MAX_DRAWN_BLOCKS:
        raise ConfigError(
            "the pattern has too many blocks to draw",
            seen=f"{pattern.num_blocks:,} blocks",
            needed=f"at most {MAX_DRAWN_BLOCKS:,}",
            change="--seq-len or --block-size",
        )
    plt = pyplot()
    heads = min(len(pattern.key_blocks), MAX_DRAWN_HEADS)
    figure, panels = plt.subplots(
        1, heads, figsize=(1 + 4 * heads, 4.6), squeeze=False, layout="constrained"
    )
    largest = int(pattern.key_counts.max())
    for head, axes in enumerate(panels[0]):
        image = axes.imshow(count_matrix(pattern, head), cmap="Blues", vmin=0, vmax=largest)
        axes.set(xlabel="key block", ylabel="query block")
        axes.set_title("all heads" if heads == 1 else f"head {head}")
    figure.colorbar(image, ax=panels, label="times read", ticks=range(largest + 1), shrink=0.8)
    figure.suptitle(
        f"{pattern.style}, layer {pattern.layer}: {pattern.seq_len:,} tokens in "
        f"{pattern.num_blocks} blocks of {pattern.block_size}, "
        f"{pattern.num_random_blocks} random blocks"
    )
    save_figure(figure, target)
    plt.close(figure)
    return heads if heads < len(pattern.key_blocks) else None


def draw_reach(shares: dict[str, list[float]], title: str, target: Path) -> None:
    """Write a PNG with a curve for each style: its reach after 1, 2, ... layers.

    Args:
        shares: the result of ``reach`` by style.

    Raises:
        ConfigError: matplotlib is not installed, or ``target`` cannot be written.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for number, (style, values) in enumerate(shares.items()):
        # Styles with equal curves (hf, google) stay visible: each later line is thinner.
        axes.plot(range(1, len(values) + 1), values, "o-", label=style, linewidth=6 / (number + 1))
    axes.set(xlabel="layers", ylabel="far block pairs connected", ylim=(-0.02, 1.02), title=title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    save_figure(figure, target)
    plt.close(figure)
