"""Planned memory against sequence length and micro-batch, as a table and a picture."""

from __future__ import annotations

from pathlib import Path

from bigbird_ds.plotting import pyplot, save_figure
from bigbird_ds.sizes import GIB
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.planning.fit import USABLE
from bigbird_ds.training.planning.memory import plan_memory
from bigbird_ds.training.planning.plan import PlanOptions, complete

MICROS = (1, 2, 4, 8)
FACTORS = (0.25, 0.5, 1, 2, 4)  # of the config's sequence length


def sweep(config: RunConfig, options: PlanOptions, target: Path) -> str:
    """Count the memory per rank for several lengths and micro-batches; draw it into ``target``.

    Returns:
        The table in GiB, a row for each length.

    Raises:
        ConfigError: matplotlib is not installed, or ``target`` cannot be written.
    """
    plt = pyplot()
    table = {length: _row(config, options, length) for length in _lengths(config, options)}
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for column, micro in enumerate(MICROS):
        sizes = [row[column] / GIB for row in table.values()]
        axes.plot(list(table), sizes, marker="o", label=f"micro-batch {micro}")
    title = "memory per rank"
    if options.gpu is not None:
        axes.axhline(USABLE * options.gpu.memory / GIB, color="black", linestyle="--")
        title += f"; dashed: {USABLE:.0%} of {options.gpu.name}"
    axes.set(xscale="log", yscale="log", xlabel="tokens in a sequence", ylabel="GiB", title=title)
    axes.set_xticks(list(table), [f"{length:,}" for length in table])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, target)
    plt.close(figure)
    header = f"{'GiB per rank':>12}" + "".join(f"{f'micro {micro}':>10}" for micro in MICROS)
    rows = [
        f"{length:>12,}" + "".join(f"{size / GIB:>10.2f}" for size in row)
        for length, row in table.items()
    ]
    return "\n".join(["", header, *rows, f"wrote {target}"])


def _lengths(config: RunConfig, options: PlanOptions) -> list[int]:
    block = complete(config, options).model_config.block_size * config.parallel.sequence
    wanted = {int(factor * config.data.sequence_length) // block * block for factor in FACTORS}
    return sorted(wanted - {0})


def _row(config: RunConfig, options: PlanOptions, length: int) -> list[int]:
    """Bytes per rank at this length, for each micro-batch."""
    model_config = complete(config, options).model_config
    model_config = model_config.replace(
        max_position_embeddings=max(length, model_config.max_position_embeddings)
    )
    sizes = []
    for micro in MICROS:
        run = config.model_copy(
            update={
                "data": config.data.model_copy(update={"sequence_length": length}),
                "batch": config.batch.model_copy(update={"micro": micro}),
            }
        )
        on_gpu = options.gpu is not None
        sizes.append(plan_memory(run, model_config, options.ranks, on_gpu).total)
    return sizes
