"""``bigbird-ds plan``: memory, steps, tokens and time of a run, before it starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bigbird_ds.cli.command_line import OVERRIDES_METAVAR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.yaml", help="run config")
    parser.add_argument(
        "overrides", nargs="*", metavar=OVERRIDES_METAVAR, help="override values of the file"
    )
    parser.add_argument("--ranks", type=int, default=1, help="number of processes (GPUs)")
    parser.add_argument(
        "--gpu",
        default=None,
        help="plan for this GPU: h200, h100, a100-80, l40s, rtx4090, ..., or its memory in GiB "
        "(default: a CPU run)",
    )
    parser.add_argument(
        "--mfu", type=float, default=None, help="share of the GPU's bf16 peak, e.g. 0.35"
    )
    parser.add_argument(
        "--tokens-per-s",
        type=float,
        default=None,
        help="measured throughput of all ranks, in tokens per second",
    )
    parser.add_argument(
        "--tokens", type=int, default=None, help="tokens of the training split (default: counted)"
    )
    parser.add_argument(
        "--sweep",
        type=Path,
        default=None,
        metavar="OUT.png",
        help="draw memory against length and micro-batch, and print it as a table",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds.errors import ConfigError
    from bigbird_ds.training.config.file import load_run_config
    from bigbird_ds.training.planning.gpus import gpu_of_option
    from bigbird_ds.training.planning.plan import PlanOptions, describe_plan
    from bigbird_ds.training.planning.sweep import sweep

    for name in ("ranks", "tokens_per_s", "tokens", "mfu"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise ConfigError(
                "the value must be positive",
                seen=f"{name}={value}",
                needed="more than 0",
                change="--" + name.replace("_", "-"),
            )
    options = PlanOptions(
        ranks=arguments.ranks,
        tokens_per_s=arguments.tokens_per_s,
        gpu=gpu_of_option(arguments.gpu) if arguments.gpu else None,
        mfu=arguments.mfu,
        tokens=arguments.tokens,
    )
    _check_effect(options)
    config = load_run_config(arguments.config, arguments.overrides)
    print(describe_plan(config, options))
    if arguments.sweep is not None:
        print(sweep(config, options, arguments.sweep))
    return 0


def _check_effect(options: Any) -> None:
    """Reject ``--mfu`` where no time follows from it."""
    from bigbird_ds.errors import ConfigError

    if options.mfu is None:
        return
    if options.mfu > 1:
        raise ConfigError(
            "a run does not exceed the peak of its GPUs",
            seen=f"--mfu {options.mfu}",
            needed="at most 1",
            change="--mfu",
        )
    if options.gpu is None or options.gpu.peak is None or options.tokens_per_s is not None:
        raise ConfigError(
            "--mfu has no effect",
            seen=f"--mfu {options.mfu}",
            needed="--gpu with the name of a GPU, and no --tokens-per-s",
            change="--mfu",
        )
