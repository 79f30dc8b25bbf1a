"""Metrics of a run: log lines, ``metrics.jsonl``, and what trackers get."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigbird_ds import files
from bigbird_ds.hub.checkpoints import METRICS_NAME
from bigbird_ds.hub.run_metrics import metrics_line, read_metrics
from bigbird_ds.hub.run_samples import samples_in_words, write_samples
from bigbird_ds.log import logger
from bigbird_ds.objectives.objective import LossPart
from bigbird_ds.sizes import GIB
from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.trackers import Sender, close_all

DROPPED_NAME = "metrics.dropped.jsonl"


class SumMeter:
    """Accumulates the results of ``loss_sums`` on the device, without synchronizing."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, sums: dict[str, Tensor]) -> None:
        for name, value in sums.items():
            if name != "loss":
                value = value.detach().double()
                self.sums[name] = self.sums[name] + value if name in self.sums else value

    def reduce(self, ranks: Ranks) -> dict[str, float]:
        """Sum over all ranks what was added since the last call, and reset; collective."""
        names = sorted(self.sums)
        totals = ranks.sum([float(self.sums[name]) for name in names])
        self.sums = {}
        return dict(zip(names, totals, strict=True))


def loss_means(sums: dict[str, float], parts: Sequence[LossPart]) -> dict[str, float]:
    """``loss`` and its parts, each the mean over its targets."""
    means = {
        part.loss: sums[part.loss] / sums[part.count]
        for part in parts
        if sums.get(part.count, 0) > 0
    }
    return {"loss": sum(means.values()), **means}


def evaluation_metrics(sums: dict[str, float], parts: Sequence[LossPart]) -> dict[str, float]:
    """``eval_`` losses, accuracies, and losses in bits (loss / ln 2, the papers' "BPC")."""
    values = loss_means(sums, parts)
    counted = [part for part in parts if part.loss in values]
    values |= {
        part.accuracy: sums[part.correct] / sums[part.count]
        for part in counted
        if part.correct in sums
    }
    values |= {part.bits: values[part.loss] / math.log(2) for part in counted if part.bits}
    return {f"eval_{name}": value for name, value in values.items()}


class MetricsWriter:
    """Writes metrics on rank 0; does nothing on other ranks.

    On a resume, lines of steps after ``steps_done`` (from a run that died after its last
    checkpoint) are moved to ``metrics.dropped.jsonl``, so that no step appears twice.

    Args:
        trackers: get the same numbers. As a context, the writer closes them.

    Attributes:
        lacks_evaluation: rank 0 found lines of step ``steps_done``, but none of an evaluation.
    """

    def __init__(
        self, output: Path, ranks: Ranks, steps_done: int, trackers: Sequence[Sender] = ()
    ) -> None:
        self.path = output / METRICS_NAME
        self.active = ranks.is_first
        self.lacks_evaluation = False
        self._trackers = trackers
        if self.active and self.path.exists():
            try:
                self._drop_after(steps_done)
            except OSError as cause:
                logger.warning(
                    "metrics of steps after %d, if any, stay in %s: %s",
                    steps_done,
                    self.path,
                    cause,
                )

    def _drop_after(self, steps_done: int) -> None:
        lines = read_metrics(self.path.parent)
        kept = [line for line in lines if line["step"] <= steps_done]
        last = [line for line in kept if line["step"] == steps_done]
        self.lacks_evaluation = bool(last) and not any("eval_loss" in line for line in last)
        self._move_aside([line for line in lines if line["step"] > steps_done])
        with files.atomic_write(self.path) as stream:
            stream.write("".join(map(metrics_line, kept)).encode())

    def _move_aside(self, dropped: list[dict[str, Any]]) -> None:
        if not dropped:
            return
        path = self.path.with_name(DROPPED_NAME)
        with path.open("a", encoding="utf-8") as stream:
            stream.write("".join(map(metrics_line, dropped)))
        first, last = dropped[0]["step"], dropped[-1]["step"]
        logger.info("metrics of steps %d to %d moved to %s", first, last, path)

    def write(self, values: dict[str, Any]) -> None:
        """Append one JSON line, and send the same numbers to the trackers.

        What cannot be written (a full disk) is logged, and training continues.
        """
        if not self.active:
            return
        try:
            self._write_line(values)
        except OSError as cause:
            logger.warning("metrics of step %d could not be written: %s", values["step"], cause)
        for tracker in self._trackers:
            tracker.log(values)

    def write_samples(self, step: int, objective: str, samples: list[dict[str, Any]]) -> None:
        """Write sample predictions of an evaluation to ``samples.jsonl`` and the trackers."""
        if not self.active:
            return
        record = {"step": step, "objective": objective, "samples": samples}
        write_samples(self.path.parent, record)
        for tracker in self._trackers:
            tracker.log_text(step, "eval/samples", samples_in_words(samples))

    def _write_line(self, values: dict[str, Any]) -> None:
        with self.path.open("ab", buffering=0) as stream:
            begin = stream.tell()
            line = metrics_line(values).encode()
            try:
                if stream.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                # The next line would be joined to the written half of this one.
                with contextlib.suppress(OSError):
                    stream.truncate(begin)
                raise

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        close_all(self._trackers, failed=kind is not None)


class Speedometer:
    """Tokens per second, the share of time spent waiting for data, and the time left."""

    def __init__(self, step: int, total_steps: int) -> None:
        self.total_steps = total_steps
        self.start(step)
        self._anchor: tuple[int, float] | None = None  # step and time of the first reading

    def start(self, step: int) -> None:
        """Start an interval, which excludes earlier time (an evaluation, a checkpoint)."""
        self.first_step, self.tokens, self.data_s = step, 0.0, 0.0
        self.began = time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """Exclude this time from the interval."""
        self.began += seconds

    def reading(self, step: int) -> dict[str, float]:
        """The values of the interval; the time left counts saves and evaluations too."""
        now = time.perf_counter()
        seconds = max(now - self.began, 1e-9)
        step_s = seconds / (step - self.first_step)
        if self._anchor is None:
            self._anchor = (step, now)  # the first step, which may compile, does not count
        first, since = self._anchor
        whole_step_s = (now - since) / (step - first) if step > first else step_s
        return {
            "tokens_per_s": self.tokens / seconds,
            "step_s": step_s,
            "data_share": self.data_s / seconds,
            "eta_s": (self.total_steps - step) * whole_step_s,
        }


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory of this process in GiB: allocated on CUDA, resident set size on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def log_line(values: dict[str, Any], parts: Sequence[LossPart], total_steps: int) -> str:
    """Format the values of a ``metrics.jsonl`` line for the log."""
    losses = " ".join(
        f"{part.name} {values[part.loss]:.4f}" for part in parts if part.loss in values
    )
    fields = [
        f"step {values['step']}/{total_steps}",
        f"loss {values['loss']:.4f} {losses}",
        f"lr {values['lr']:.2e}",
        f"gnorm {values['grad_norm']:.3f}",
        f"{thousands(values['tokens_per_s'])} tok/s",
        f"mem {values['memory_gib']:.2f} GiB",
        f"data {values['data_share']:.0%}",
        f"eta {duration(values['eta_s'])}",
    ]
    if "mfu" in values:
        fields.insert(5, f"mfu {values['mfu']:.1%}")
    return " | ".join(fields)


def thousands(value: float) -> str:
    """Format a number as ``12.3k`` or ``123``."""
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """Format seconds as ``3d04h``, ``3h12m``, ``4m05s`` or ``12s``."""
    whole = round(seconds)
    if whole >= 86400:
        return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def log_evaluation(values: dict[str, Any]) -> None:
    shown = " ".join(
        f"{name.removeprefix('eval_')} {value:.4f}"
        for name, value in values.items()
        if name.startswith("eval_")
    )
    logger.info("evaluation at step %d | %s", values["step"], shown)
