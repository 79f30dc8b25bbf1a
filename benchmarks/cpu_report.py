"""Draw docs/cpu_step.png and print tables for docs/performance.md from results of training_step.py.

python benchmarks/cpu_report.py        # draws the chart, prints the tables as Markdown
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bigbird_ds.plotting import pyplot  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
CHART = ROOT / "docs" / "cpu_step.png"
CHARTED = ("cpu_training_step.json", "cpu_training_step_16384.json")
TABLES = (*CHARTED, "cpu_training_step_65536.json", "cpu_pegasus_step.json", "cpu_growth.json")
COLOURS = {
    ("ours", "fp32"): "#1f6f8b",
    ("ours", "bf16"): "#99b898",
    ("transformers fast", "fp32"): "#f2a154",
    ("transformers", "fp32"): "#c0392b",
}


def main() -> None:
    for name in TABLES:
        print(f"\n{name}\n\n{_table(_results(name))}")
    results = [result for name in CHARTED for result in _results(name)]
    _draw(results)
    print(f"\nwrote {CHART.relative_to(ROOT)}")


def _results(name: str) -> list[dict[str, Any]]:
    return json.loads((RESULTS / name).read_text())["results"]


def _table(results: list[dict[str, Any]]) -> str:
    lines = ["| N | contender | seconds | ratio | tokens/s | GFLOP/s | peak GiB |"]
    lines.append("|---" * 7 + "|")
    for r in results:
        lines.append(
            f"| {r['length']:,} | {r['name']}, {r['dtype']} | {r['seconds']:.2f} "
            f"| {r['ratio']:.2f} x | {r['tokens_per_second']:,.0f} "
            f"| {r['gflops_per_second']:.0f} | {r['peak_gib']:.2f} |"
        )
    return "\n".join(lines)


def _draw(results: list[dict[str, Any]]) -> None:
    lengths = sorted({result["length"] for result in results})
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    quantities = (
        (panels[0], "tokens_per_second", "tokens/s"),
        (panels[1], "peak_gib", "peak memory, GiB"),
    )
    for axes, quantity, title in quantities:
        for index, (contender, colour) in enumerate(COLOURS.items()):
            found = {
                r["length"]: r[quantity] for r in results if (r["name"], r["dtype"]) == contender
            }
            bars = axes.bar(
                [place + 0.2 * (index - 1.5) for place, N in enumerate(lengths) if N in found],
                [found[N] for N in lengths if N in found],
                width=0.18,
                color=colour,
                label=", ".join(contender),
            )
            axes.bar_label(bars, fmt="{:,.3g}" if quantity == "peak_gib" else "{:,.0f}", fontsize=7)
        axes.set_title(title)
        axes.set_xticks(range(len(lengths)), [f"N = {length:,}" for length in lengths])
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].legend(frameon=False, fontsize=8)
    figure.suptitle("One training step on 2 CPU cores, base width, 2 layers", fontsize=11)
    figure.savefig(CHART, dpi=130)


if __name__ == "__main__":
    main()
