"""What a run tells: a log line an interval, ``metrics.jsonl`` and TensorBoard events beside it."""

from __future__ import annotations

import math
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigbird_ds import files
from bigbird_ds.hub.checkpoints import METRICS_NAME
from bigbird_ds.hub.run_metrics import metrics_line, read_metrics
from bigbird_ds.log import logger
from bigbird_ds.training.distributed import Ranks
from bigbird_ds.training.losses import LOSS_PARTS

TENSORBOARD_NAME = "tensorboard"
DROPPED_NAME = "metrics.dropped.jsonl"
_GIB = 1 << 30


class SumMeter:
    """Adds up the sums of ``loss_sums`` on the device; the host sees them when it asks."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, sums: dict[str, Tensor]) -> None:
        for name, value in sums.items():
            if name != "loss":
                value = value.detach().double()
                self.sums[name] = self.sums[name] + value if name in self.sums else value

    def reduce(self, ranks: Ranks) -> dict[str, float]:
        """Sums over all ranks and additions since the last call; collective."""
        names = sorted(self.sums)
        totals = ranks.sum([float(self.sums[name]) for name in names])
        self.sums = {}
        return dict(zip(names, totals, strict=True))


def loss_means(sums: dict[str, float]) -> dict[str, float]:
    """``loss`` and its parts (names of ``LOSS_PARTS``): sums divided by what they sum over."""
    parts = {
        name: sums[name] / sums[number]
        for name, number in LOSS_PARTS.items()
        if sums.get(number, 0) > 0
    }
    return {"loss": sum(parts.values()), **parts}


def accuracies(sums: dict[str, float]) -> dict[str, float]:
    """``mlm_accuracy``, ``nsp_accuracy`` and ``target_accuracy``, where they were counted."""
    pairs = {
        "mlm_accuracy": ("mlm_correct", "mlm_targets"),
        "nsp_accuracy": ("nsp_correct", "nsp_samples"),
        "target_accuracy": ("target_correct", "target_tokens"),
    }
    return {
        name: sums[correct] / sums[number]
        for name, (correct, number) in pairs.items()
        if sums.get(number, 0) > 0
    }


def evaluation_metrics(sums: dict[str, float]) -> dict[str, float]:
    """``eval_`` losses, accuracies and bits per masked token (loss / ln 2, the papers' "BPC")."""
    values = loss_means(sums) | accuracies(sums)
    if "mlm_loss" in values:
        values["bits_per_masked_token"] = values["mlm_loss"] / math.log(2)
    return {f"eval_{name}": value for name, value in values.items()}


class MetricsWriter:
    """Rank 0 writes; the others hold a writer that does nothing.

    On a resume, lines of steps after ``steps_done`` (a run that died after its last checkpoint)
    are moved to ``metrics.dropped.jsonl``, so that each step stands in the file once.

    Attributes:
        lacks_evaluation: rank 0 found a line of step ``steps_done``, and none of an evaluation.
    """

    def __init__(self, output: Path, ranks: Ranks, steps_done: int) -> None:
        self.path = output / METRICS_NAME
        self.active = ranks.is_first
        self.lacks_evaluation = False
        if not self.active:
            return
        from torch.utils.tensorboard import SummaryWriter

        if self.path.exists():
            lines = read_metrics(output)
            kept = [line for line in lines if line["step"] <= steps_done]
            self._move_aside([line for line in lines if line["step"] > steps_done])
            last = [line for line in kept if line["step"] == steps_done]
            self.lacks_evaluation = bool(last) and not any("eval_loss" in line for line in last)
            with files.atomic_write(self.path) as stream:
                stream.write("".join(map(metrics_line, kept)).encode())
        self.tensorboard = SummaryWriter(
            str(output / TENSORBOARD_NAME), purge_step=steps_done + 1 if steps_done else None
        )

    def _move_aside(self, dropped: list[dict[str, Any]]) -> None:
        if not dropped:
            return
        path = self.path.with_name(DROPPED_NAME)
        with path.open("a", encoding="utf-8") as stream:
            stream.write("".join(map(metrics_line, dropped)))
        first, last = dropped[0]["step"], dropped[-1]["step"]
        logger.info("metrics of steps %d to %d moved to %s", first, last, path)

    def write(self, values: dict[str, Any]) -> None:
        """Append one JSON line and the same numbers as TensorBoard scalars.

        A line that cannot be written (a full disk) is logged, and training continues.
        """
        if not self.active:
            return
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(metrics_line(values))
            for name, value in values.items():
                if name not in ("step", "time"):
                    group = "eval/" if name.startswith("eval_") else "train/"
                    self.tensorboard.add_scalar(group + name, value, values["step"])
            self.tensorboard.flush()
        except OSError as cause:
            message = "metrics of step %d could not be written: %s"
            logger.warning(message, values["step"], cause.strerror)

    def close(self) -> None:
        if self.active:
            self.tensorboard.close()


class Speedometer:
    """Tokens per second, the share of time spent waiting for data, and the time left."""

    def __init__(self, step: int, total_steps: int) -> None:
        self.total_steps = total_steps
        self.start(step)

    def start(self, step: int) -> None:
        """Begin an interval; time before it (an evaluation, a checkpoint) is not counted."""
        self.first_step, self.tokens, self.data_s = step, 0.0, 0.0
        self.began = time.perf_counter()

    def reading(self, step: int) -> dict[str, float]:
        seconds = max(time.perf_counter() - self.began, 1e-9)
        steps = step - self.first_step
        return {
            "tokens_per_s": self.tokens / seconds,
            "step_s": seconds / steps,
            "data_share": self.data_s / seconds,
            "eta_s": (self.total_steps - step) * seconds / steps,
        }


def peak_memory_gib(device: torch.device) -> float:
    """Largest memory of this process so far: the card's on CUDA, resident memory on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def log_line(values: dict[str, Any], total_steps: int) -> str:
    """The line that a person reads, from a line of ``metrics.jsonl``."""
    parts = " ".join(
        f"{n.removesuffix('_loss')} {values[n]:.4f}" for n in LOSS_PARTS if n in values
    )
    fields = [
        f"step {values['step']}/{total_steps}",
        f"loss {values['loss']:.4f} {parts}",
        f"lr {values['lr']:.2e}",
        f"gnorm {values['grad_norm']:.3f}",
        f"{_thousands(values['tokens_per_s'])} tok/s",
        f"mem {values['memory_gib']:.2f} GiB",
        f"data {values['data_share']:.0%}",
        f"eta {duration(values['eta_s'])}",
    ]
    if "mfu" in values:
        fields.insert(5, f"mfu {values['mfu']:.1%}")
    return " | ".join(fields)


def _thousands(value: float) -> str:
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """``3d04h``, ``3h12m``, ``4m05s`` or ``12s``."""
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
