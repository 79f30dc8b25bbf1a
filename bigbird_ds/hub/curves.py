"""Plot the loss and throughput of runs as PNG, from ``metrics.jsonl``."""

from __future__ import annotations

from pathlib import Path

from bigbird_ds.errors import DataError
from bigbird_ds.hub.checkpoints import METRICS_NAME
from bigbird_ds.hub.run_metrics import read_metrics
from bigbird_ds.plotting import pyplot, save_figure


def draw_curves(runs: list[Path], target: Path) -> None:
    """Write a PNG with two panels: training and evaluation loss, and tokens per second.

    Raises:
        ConfigError: matplotlib is not installed, or ``target`` cannot be written.
        DataError: a run has no metrics.
    """
    plt = pyplot()
    figure, (losses, speeds) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for run in runs:
        lines = read_metrics(run)
        if not lines:
            raise DataError(
                "nothing to plot",
                seen=f"{run / METRICS_NAME} is missing or empty",
                needed="a run folder with at least one logged step",
                change="the path",
            )
        train = [line for line in lines if "loss" in line]
        held_out = [line for line in lines if "eval_loss" in line]
        steps = [line["step"] for line in train]
        (curve,) = losses.plot(steps, [line["loss"] for line in train], label=f"{run}, training")
        losses.plot(
            [line["step"] for line in held_out],
            [line["eval_loss"] for line in held_out],
            "o--",
            color=curve.get_color(),
            label=f"{run}, validation",
        )
        speeds.plot(steps, [line["tokens_per_s"] for line in train], label=str(run))
    losses.set(xlabel="step", ylabel="loss (nats)", title="Loss")
    speeds.set(xlabel="step", ylabel="tokens per second", title="Throughput", ylim=(0, None))
    for axes in (losses, speeds):
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, target)
    plt.close(figure)
