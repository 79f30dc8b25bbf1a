"""``bigbird-ds import``: import a Hub checkpoint as the initial weights of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bigbird_ds.errors import EXIT_DONE

if TYPE_CHECKING:
    from bigbird_ds.hub.importing import ImportReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        metavar="HUB_FOLDER",
        help="a local folder in Hub format: BigBird or BigBirdPegasus; or BERT or RoBERTa, for a "
        "warm start",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to create")
    parser.add_argument(
        "--extend-positions",
        type=int,
        metavar="N",
        help="extend to N positions by repeating the checkpoint's",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="tokenizer of your shards: maps the word embeddings of BERT or RoBERTa to it",
    )
    parser.add_argument(
        "--random-style",
        metavar="STYLE",
        help="how random blocks are drawn: hf, hf_eval, google, uniform or relay (default: the "
        "source's, else hf, as in transformers); the checkpoints that Google released were "
        "trained with google",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds import log
    from bigbird_ds.hub.importing import import_model
    from data_prep.tokenizer_folder import write_tokenizer_folder

    log.setup()
    report = import_model(
        arguments.source,
        arguments.out,
        write_tokenizer_folder,
        extend_positions=arguments.extend_positions,
        tokenizer=arguments.tokenizer,
        random_style=arguments.random_style,
    )
    print(report.text())
    print(_next_step(report, arguments))
    return EXIT_DONE


def _next_step(report: ImportReport, arguments: argparse.Namespace) -> str:
    """What was written and what to do next.

    Shards never have BERT's or RoBERTa's tokenizer, so training needs ``--tokenizer`` for these.
    """
    from bigbird_ds.hub.warm_start import WARM_STARTS

    if report.tokenizer and report.source_type in WARM_STARTS and arguments.tokenizer is None:
        return (
            f"wrote {arguments.out} with the source's tokenizer; to train on your shards, "
            "import with `--tokenizer DIR`, their tokenizer"
        )
    return f"wrote {arguments.out}; to continue pretraining, set `model: {arguments.out}`"
