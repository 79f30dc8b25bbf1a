"""Draw docs/cpu_step.png from the results of training_step.py.

python benchmarks/draw_cpu_chart.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bigbird_ds.plotting import pyplot  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "cpu_training_step_fp32.json"
CHART = ROOT / "docs" / "cpu_step.png"
COLOURS = {
    "ours": "#1f6f8b",
    "ours dense": "#99b898",
    "transformers fast": "#f2a154",
    "transformers": "#c0392b",
}


def main() -> None:
    content = json.loads(RESULTS.read_text())
    results = content["results"]
    lengths = sorted({result["length"] for result in results})
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    quantities = (
        (panels[0], "tokens_per_second", "tokens/s"),
        (panels[1], "peak_gib", "peak memory, GiB"),
    )
    for axes, quantity, title in quantities:
        for index, (name, colour) in enumerate(COLOURS.items()):
            found = {r["length"]: r[quantity] for r in results if r["name"] == name}
            places = [place + 0.2 * (index - 1.5) for place in range(len(lengths))]
            values = [found.get(length) or 0.0 for length in lengths]
            bars = axes.bar(places, values, width=0.18, color=colour, label=name)
            axes.bar_label(bars, fmt="{:,.3g}" if quantity == "peak_gib" else "{:,.0f}", fontsize=7)
        axes.set_title(title)
        axes.set_xticks(range(len(lengths)), [f"N = {length:,}" for length in lengths])
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].legend(frameon=False, fontsize=8)
    threads = content["environment"]["threads"]
    figure.suptitle(
        f"One training step on a CPU, base width, 2 layers, fp32, threads: {threads}", fontsize=11
    )
    figure.savefig(CHART, dpi=130)
    print(f"wrote {CHART}")


if __name__ == "__main__":
    main()
