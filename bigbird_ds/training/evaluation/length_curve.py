"""The result of ``bigbird-ds evaluate``: as a table, as JSON, and drawn by visible length."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bigbird_ds.plotting import pyplot, save_figure
from bigbird_ds.training.evaluation.spread import PartResult


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        facts: model, shards, split, seed, windows, what the spread counts.
        lengths: tokens that the model sees.
        attention: ``full`` or ``block sparse``, for each length.
        results: for each length, the parts of the loss.
    """

    facts: dict[str, Any]
    lengths: list[int]
    attention: list[str]
    results: list[list[PartResult]]

    def table(self) -> str:
        """A line for each length and part of the loss."""
        header = ("tokens", "attention", "loss of", "targets", "loss", "accuracy", "bits")
        rows = [list(header)]
        for length, attention, parts in zip(
            self.lengths, self.attention, self.results, strict=True
        ):
            for part in parts:
                numbers = (part.loss, part.accuracy, part.bits)
                row = [f"{length:,}", attention, part.part, f"{part.targets:,}"]
                rows.append(row + [str(number) for number in numbers])
                if len(self.lengths) > 1:
                    change = part.bits_change
                    rows[-1].append("" if change is None else str(change))
        if len(self.lengths) > 1:
            rows[0].append(f"bits, from {self.lengths[0]:,} tokens")
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def to_json(self) -> dict[str, Any]:
        return self.facts | {
            "lengths": [
                {
                    "length": length,
                    "attention": attention,
                    "parts": [asdict(part) for part in parts],
                }
                for length, attention, parts in zip(
                    self.lengths, self.attention, self.results, strict=True
                )
            ]
        }

    def draw(self, target: Path) -> None:
        """Loss in bits and accuracy by visible length, with bars of one standard error.

        Raises:
            ConfigError: matplotlib is not installed, or ``target`` cannot be written.
        """
        plt = pyplot()
        figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.8), layout="constrained")
        for name in [part.part for part in self.results[0]]:
            found = [part for parts in self.results for part in parts if part.part == name]
            for each, values in zip(
                axes,
                ([part.bits for part in found], [part.accuracy for part in found]),
                strict=True,
            ):
                each.errorbar(
                    self.lengths,
                    [mean.value for mean in values],
                    [mean.error or 0.0 for mean in values],
                    fmt="o-",
                    capsize=3,
                    label=name,
                )
        for each, title in zip(axes, ("bits a target token", "accuracy"), strict=True):
            each.set_xscale("log", base=2)
            each.set_xticks(self.lengths, [f"{length:,}" for length in self.lengths])
            each.set(xlabel="visible tokens", title=title)
            each.grid(alpha=0.3)
            each.minorticks_off()
        if len(self.results[0]) > 1:
            figure.legend(loc="outside right upper")
        save_figure(figure, target)
        plt.close(figure)
