"""``bigbird-ds plan``: memory, steps, tokens and time of a run, before it starts."""

from __future__ import annotations

import argparse

from bigbird_ds.cli.command_line import OVERRIDES_METAVAR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.yaml", help="run config")
    parser.add_argument(
        "overrides", nargs="*", metavar=OVERRIDES_METAVAR, help="override values of the file"
    )
    parser.add_argument("--ranks", type=int, default=1, help="number of processes (GPUs)")
    parser.add_argument(
        "--tokens-per-s",
        type=float,
        default=None,
        help="measured throughput of all ranks, in tokens per second",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds.errors import ConfigError
    from bigbird_ds.training.config.file import load_run_config
    from bigbird_ds.training.plan import describe_plan

    for name in ("ranks", "tokens_per_s"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            raise ConfigError(
                "the value must be positive",
                seen=f"{name}={value}",
                needed="more than 0",
                change="--" + name.replace("_", "-"),
            )
    config = load_run_config(arguments.config, arguments.overrides)
    print(describe_plan(config, arguments.ranks, arguments.tokens_per_s))
    return 0
