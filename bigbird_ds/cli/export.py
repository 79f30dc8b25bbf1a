"""``bigbird-ds export``: a run or checkpoint becomes a Hub-format folder."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a run folder, or RUN/checkpoints/step-N")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="of the exported weights",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds import log
    from bigbird_ds.hub.export import export

    log.setup()
    report = export(arguments.source, arguments.out, arguments.dtype)
    print(f"exported {report.checkpoint} (step {report.step}) to {report.target}")
    if report.largest_difference is None:
        print("not checked: transformers is not installed here, so nothing was compared with it")
    else:
        print(
            f"checked: transformers {report.transformers_version} loads it and computes the same "
            f"logits (largest difference {report.largest_difference:.1e})"
        )
    return 0
