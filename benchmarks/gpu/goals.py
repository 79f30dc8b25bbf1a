"""The goals for a GPU (docs/performance.md), and the values reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpu.report import Record
from gpu.sizes import Sizes


@dataclass(frozen=True)
class Goal:
    """A row of the summary.

    Attributes:
        wanted, unit: a bound: a minimum, or a maximum if ``at_most``.
        found: the value reached; None if nothing was measured.
    """

    what: str
    wanted: float
    unit: str
    found: float | None
    at_most: bool = False

    def verdict(self) -> str:
        if self.found is None:
            return "not measured"
        met = self.found <= self.wanted if self.at_most else self.found >= self.wanted
        return "met" if met else "missed"

    def line(self) -> str:
        found = "-" if self.found is None else f"{self.found:,.4g}"
        bound = ("<= " if self.at_most else ">= ") + f"{self.wanted:,g}"
        return f"  {self.what:<58} {bound:>12} {found:>10} {self.unit:<12} {self.verdict()}"


def goals(records: Sequence[Record], sizes: Sizes) -> list[Goal]:
    """All goals, for an H200."""

    def best(section: str, names: str | Iterable[str], length: int | None, unit: str,
             choose: Callable[..., float] = max) -> float | None:  # fmt: skip
        names = [names] if isinstance(names, str) else list(names)
        values = [
            record.value
            for record in records
            if (record.section, record.unit) == (section, unit)
            and record.name in names
            and record.value is not None
            and (length is None or f"N {length:,}" in record.setting)
        ]
        return choose(values) if values else None

    def step(name: str, length: int | None) -> float | None:
        return best("training step", (name, f"{name}, not compiled"), length, "tokens/s")

    def attention(section: str, name: str, length: int) -> float | None:
        """Goals of forward and backward."""
        parts = [
            best(section, f"{name} {part}", length, "ms", min) for part in ("forward", "backward")
        ]
        return None if None in parts else math.fsum(x for x in parts if x is not None)

    def against_flex(length: int) -> float | None:
        """The ratio to the faster of the two baselines, which alternated with ours."""
        ratios = [
            _ratio(attention(section, name, length), attention(section, "triton", length))
            for section, name in (("attention", "flex"), ("flex autotuned", "flex autotuned"))
        ]
        return min((ratio for ratio in ratios if ratio is not None), default=None)

    shortest, longest = sizes.lengths[0], sizes.lengths[-1]
    middle = sizes.lengths[len(sizes.lengths) // 2]
    base = {length: step("base ours", length) for length in sizes.lengths}
    measured = [value for value in base.values() if value is not None]
    slowest = min(measured) if len(measured) == len(base) else None
    useful = "TFLOP/s useful"
    found = [
        Goal("attention forward with mask", 250, "TFLOP/s",
             best("attention", "triton forward", longest, useful)),
        Goal("attention backward with mask", 180, "TFLOP/s",
             best("attention", "triton backward", longest, useful)),
        Goal(f"attention against FlexAttention at {longest:,}", 1.3, "x",
             against_flex(longest)),
        Goal(f"attention against FlexAttention at {shortest:,}", 1.0, "x",
             against_flex(shortest)),
        Goal("base, at the slowest length", 600_000, "tokens/s", slowest),
        Goal("large, at the longest length", 190_000, "tokens/s", step("large ours", longest)),
        Goal("base: slowest length below the fastest", 5, "%",
             None if slowest is None else 100 * (1 - slowest / max(measured)), at_most=True),
        Goal(f"base against transformers at {sizes.peer_length:,}", 5, "x",
             _ratio(step("base ours", sizes.peer_length),
                    best("training step", "base transformers block_sparse", None, "tokens/s"))),
    ]  # fmt: skip
    for length, wanted in zip((shortest, middle, longest), (1.15, 2.8, 9.0), strict=True):
        dense = best("training step", ("base dense cudnn", "base dense flash"), length, "tokens/s")
        what = f"base against dense attention at {length:,}"
        found.append(Goal(what, wanted, "x", _ratio(base[length], dense)))
    pegasus = [
        best("encoder-decoder", f"pegasus-large {name}", None, "tokens/s")
        for name in ("ours", "transformers")
    ]
    first = sizes.memory_lengths[0]
    return [
        *found,
        Goal("BigBirdPegasus-large against transformers", 3, "x", _ratio(*pegasus)),
        Goal(f"one sequence of {sizes.longest:,} tokens, finite losses", 1, "losses",
             best("one long sequence", "base ours", None, "loss", _finite)),
        Goal("activations, checkpointing, base", 60, "kB/token",
             best("memory", "base ours, checkpointing", first, "kB/token", min), at_most=True),
    ]  # fmt: skip


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other


def _finite(losses: list[float]) -> float:
    return sum(map(math.isfinite, losses))
