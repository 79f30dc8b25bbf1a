"""``bigbird-ds evaluate``: the loss of a trained model on shards, also by visible length."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bigbird_ds.errors import EXIT_DONE, ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, help="a run folder, RUN/checkpoints/step-N, or an export"
    )
    parser.add_argument("shards", type=Path, help="a shards folder written with its tokenizer")
    parser.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        metavar="L",
        help="cut the text around the same targets to these numbers of tokens",
    )
    parser.add_argument("--split", default="validation", help="train or validation")
    parser.add_argument(
        "--windows", type=int, metavar="N", help="most windows, evenly spread; default: all"
    )
    parser.add_argument("--seed", type=int, help="of the masks; default: that of the run, or 0")
    parser.add_argument("--device", help="cpu or cuda; default: the GPU if there is one")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="of the weights while they compute",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PNG", help="draw bits and accuracy by visible length"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)

    import torch

    from bigbird_ds import files
    from bigbird_ds.data.shards import Shards
    from bigbird_ds.plotting import pyplot
    from bigbird_ds.training.evaluation.trained_model import TrainedModel

    if arguments.out is not None:
        pyplot()  # an error now, not after the evaluation
    shards = Shards(arguments.shards, arguments.split)
    dtype = getattr(torch, arguments.dtype)
    trained = TrainedModel.load(arguments.model, arguments.device, dtype)
    shards.check_tokenizer(trained.objective.vocabulary)
    found = _evaluate(trained, shards, arguments)
    print(found.table())
    if arguments.out is not None:
        found.draw(arguments.out)
        print(f"wrote {arguments.out}")
    if arguments.json is not None:
        files.make_folder(arguments.json.parent, ConfigError, "--json")
        files.write_json(arguments.json, found.to_json())
        print(f"wrote {arguments.json}")
    return EXIT_DONE


def _evaluate(trained: Any, shards: Any, arguments: argparse.Namespace) -> Any:
    from bigbird_ds.training.evaluation.length_curve import Evaluation
    from bigbird_ds.training.evaluation.visible_length import (
        CutWindows,
        check_lengths,
        measure,
        plain_windows,
    )

    seed = trained.seed if arguments.seed is None else arguments.seed
    lengths = [trained.sequence_length]
    if arguments.lengths is None:
        windows = plain_windows(shards, trained, seed, arguments.windows)
    else:
        lengths = check_lengths(arguments.lengths, trained)
        windows = iter(CutWindows(shards, trained, lengths, seed, arguments.windows))
    sums = measure(trained, windows, len(lengths))
    counts = f"{len(sums):,} windows"
    by_document = arguments.lengths is not None and sums.num_documents > 1
    if by_document:
        counts += f" of {sums.num_documents:,} documents"
    unit = "documents" if by_document else "windows"
    print(f"{trained.folder} on the {shards.split} split of {shards.folder}: {counts}")
    print(f"+- is the standard error over {unit}")
    facts = {
        "model": str(trained.folder),
        "shards": str(shards.folder),
        "split": shards.split,
        "objective": trained.objective.name,
        "seed": seed,
        "windows": len(sums),
        "spread_over": unit,
    }
    if by_document:
        facts["documents"] = sums.num_documents
    full = trained.model.config.max_full_attention_tokens
    sparse = trained.model.config.attention_type == "block_sparse"
    attention = ["block sparse" if sparse and each > full else "full" for each in lengths]
    return Evaluation(facts, lengths, attention, sums.results())


def _check(arguments: argparse.Namespace) -> None:
    """Reject options out of range before anything is read."""
    if arguments.windows is not None and arguments.windows < 1:
        raise ConfigError(
            "the number of windows is out of range",
            seen=f"--windows {arguments.windows}",
            needed="at least 1",
            change="--windows",
        )
    if arguments.seed is not None and arguments.seed < 0:
        raise ConfigError(
            "--seed is out of range", seen=arguments.seed, needed="0 or more", change="--seed"
        )
    if arguments.split not in ("train", "validation"):
        raise ConfigError(
            "unknown split",
            seen=f"--split {arguments.split}",
            needed="train or validation",
            change="--split",
        )
    if arguments.out is None:
        return
    if arguments.lengths is None:
        raise ConfigError(
            "--out has no effect without --lengths",
            seen=f"--out {arguments.out}",
            needed="--lengths L ..., for a curve by visible length",
            change="--out",
        )
    if arguments.out.suffix.lower() != ".png":
        raise ConfigError(
            "the picture is a PNG",
            seen=f"--out {arguments.out}",
            needed="a file name that ends in .png",
            change="--out",
        )
