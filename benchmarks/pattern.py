"""Time and memory of drawing the pattern of one layer and preparing it on the CPU.

    python benchmarks/pattern.py                          # N = 1,048,576, every style
    python benchmarks/pattern.py --lengths 4096 65536 --json result.json

Memory is the peak while drawing, and what the pattern keeps: numpy arrays, traced in a second
drawing, and the tables on the device.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # works without an installed package

import command_line  # noqa: E402

from bigbird_ds.attention import BlockPattern  # noqa: E402
from bigbird_ds.attention.styles import STYLES  # noqa: E402

CPU = torch.device("cpu")


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1 << 20])
    parser.add_argument("--heads", type=int, default=12)
    arguments = parser.parse_args()
    facts = command_line.begin()
    BlockPattern.build(4096)  # the first drawing imports modules
    results = []
    print(f"{'N':>9} {'style':<8} {'seconds':>8} {'peak MB':>8} {'kept MB':>8}")
    for length in arguments.lengths:
        for style in STYLES:
            result = {"length": length, "style": style, **_measured(length, arguments.heads, style)}
            results.append(result)
            print(
                f"{length:>9,} {style:<8} {result['seconds']:>8.2f} {result['peak_mb']:>8.1f} "
                f"{result['kept_mb']:>8.1f}",
                flush=True,
            )
    command_line.write_results("pattern", arguments, facts, results)
    return 0


def _measured(length: int, heads: int, style: str) -> dict[str, float]:
    began = time.process_time()
    _ready(length, heads, style, layer=0)
    seconds = time.process_time() - began
    tracemalloc.start()
    pattern = _ready(length, heads, style, layer=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    on_device = sum(table.nbytes for table in pattern.on_device(CPU))
    kept = pattern.key_blocks.nbytes + pattern.key_counts.nbytes + on_device
    return {"seconds": seconds, "peak_mb": max(peak, kept) / 1e6, "kept_mb": kept / 1e6}


def _ready(length: int, heads: int, style: str, layer: int) -> BlockPattern:
    pattern = BlockPattern.build(length, heads, style=style, layer=layer, max_positions=length)
    pattern.on_device(CPU)
    return pattern


if __name__ == "__main__":
    sys.exit(main())
