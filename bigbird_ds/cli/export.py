"""``bigbird-ds export``: export a run or checkpoint to a Hub-format folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bigbird_ds.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a run folder, or RUN/checkpoints/step-N")
    parser.add_argument("out", type=Path, help="folder to create")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="dtype of the exported weights",
    )
    parser.add_argument(
        "--max-shard-size",
        default="5G",
        metavar="SIZE",
        help="largest size of a weight file (500M, 2G); more weights are split into shards",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="then upload to this Hub repository (token: HF_TOKEN or `hf auth login`)",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds import log
    from bigbird_ds.hub.export import export
    from bigbird_ds.hub.push import check_can_push, push
    from bigbird_ds.sizes import parse_size

    log.setup()
    max_shard_size = parse_size("--max-shard-size", arguments.max_shard_size)
    if arguments.push is not None:
        check_can_push(arguments.push)
    report = export(arguments.source, arguments.out, arguments.dtype, max_shard_size)
    print(f"exported {report.checkpoint} (step {report.step}) to {report.target}")
    if report.largest_difference is None:
        print("not checked: transformers is not installed")
    else:
        print(
            f"checked: transformers {report.transformers_version} loads it and computes the same "
            f"logits (largest difference {report.largest_difference:.1e})"
        )
    if report.limit is not None:
        print(f"limit: {report.limit}")
    if arguments.push is not None:
        print(f"uploaded: {push(report.target, arguments.push)}")
    return EXIT_DONE
