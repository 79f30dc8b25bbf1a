"""``bigbird-ds tokenizer``: train a tokenizer on documents, or use an existing spiece.model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbird_ds.cli.shard import (
    add_input_arguments,
    check_range,
    default_kind,
    fields_of,
    require_inputs,
)
from bigbird_ds.errors import EXIT_DONE, ConfigError
from bigbird_ds.vocabulary import PEGASUS
from bigbird_ds.white_space import NEWLINES, PIECE, SPACE

if TYPE_CHECKING:
    from data_prep.tokenizer_training import TrainingOptions

_TRAINING_ONLY = (
    "vocab_size",
    "max_sentences",
    "character_coverage",
    "normalization",
    "model",
    "format",
    "documents",
    "text_field",
    "encoding_errors",
    "on_error",
    "case",
    "n_runs",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input_arguments(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder to create"
    )
    parser.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="number of pieces, including special ones (bigbird 101, pegasus 106); required "
        "for training",
    )
    parser.add_argument(
        "--family",
        choices=("bigbird", "pegasus"),
        default="bigbird",
        help="model family, which sets the special ids",
    )
    parser.add_argument(
        "--spiece-model",
        type=Path,
        metavar="FILE",
        help="convert this model instead of training one",
    )
    parser.add_argument(
        "--kmer",
        type=int,
        metavar="K",
        help="for DNA: a vocabulary of all words of K bases, 2 to 8, instead of a trained one",
    )
    parser.add_argument(
        "--model",
        choices=("unigram", "bpe"),
        default="unigram",
        help="kind of sentencepiece model to train",
    )
    parser.add_argument(
        "--max-sentences",
        type=int,
        default=1_000_000,
        metavar="N",
        help="train on a sample of at most N sentences; a million need about 4 GB of memory",
    )
    parser.add_argument(
        "--character-coverage",
        type=float,
        default=0.9995,
        metavar="F",
        help="fraction of character occurrences in the text that get a piece",
    )
    parser.add_argument(
        "--normalization",
        choices=("none", "nfc", "nfkc"),
        default="none",
        help="Unicode normalization, applied to every text from then on; any white space always"
        " becomes a space",
    )
    parser.add_argument(
        "--newline",
        choices=NEWLINES,
        help="what a line end becomes: a space, or the piece <n> (pegasus only); default: piece for"
        " pegasus, if a --spiece-model has it, as in the original code",
    )
    parser.set_defaults(
        training_defaults={name: parser.get_default(name) for name in _TRAINING_ONLY}
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds import log
    from bigbird_ds.hub.new_folder import new_folder
    from bigbird_ds.hub.verify_tokenizer import verify_tokenizer
    from bigbird_ds.vocabulary import SPIECE_NAME
    from data_prep.line_ends import DEFAULT
    from data_prep.tokenizer_folder import write_tokenizer_folder

    log.setup()
    with new_folder(arguments.out, "--out") as folder:
        if arguments.spiece_model is not None:
            _refuse_training_options(arguments, "--spiece-model", {"kmer": None})
            newline = arguments.newline or DEFAULT
            write_tokenizer_folder(arguments.spiece_model, folder, arguments.family, newline)
        else:
            spiece = folder / SPIECE_NAME
            spiece.write_bytes(_train(arguments) if arguments.kmer is None else _kmers(arguments))
            write_tokenizer_folder(spiece, folder)
        verify_tokenizer(folder)
    log.logger.info("wrote %s", arguments.out)
    return EXIT_DONE


def _kmers(arguments: argparse.Namespace) -> bytes:
    from data_prep.families import FAMILIES
    from data_prep.kmers import MAX_K
    from data_prep.tokenizer_training import make_kmer_tokenizer

    _refuse_training_options(arguments, "--kmer", {"newline": None})
    check_range("--kmer", arguments.kmer, 2 <= arguments.kmer <= MAX_K, f"2 to {MAX_K}")
    return make_kmer_tokenizer(arguments.kmer, FAMILIES[arguments.family])


def _train(arguments: argparse.Namespace) -> bytes:
    from data_prep.families import FAMILIES
    from data_prep.tokenizer_training import train_tokenizer

    require_inputs(arguments.inputs)
    size, coverage = arguments.vocab_size, arguments.character_coverage
    family = FAMILIES[arguments.family]
    if size is None:
        raise ConfigError(
            "training a tokenizer needs a vocabulary size",
            seen="no --vocab-size",
            needed=f"more than {family.num_special}, e.g. 32000",
            change="--vocab-size, or --spiece-model to convert an existing model",
        )
    options = _training_options(arguments)
    is_large_enough = size > options.num_special
    check_range("--vocab-size", size, is_large_enough, f"more than {options.num_special}")
    check_range("--max-sentences", arguments.max_sentences, arguments.max_sentences > 0, "above 0")
    check_range("--character-coverage", coverage, 0.9 <= coverage <= 1, "0.9 to 1")
    return train_tokenizer(arguments.inputs, options)


def _training_options(arguments: argparse.Namespace) -> TrainingOptions:
    from data_prep.families import FAMILIES
    from data_prep.input_kinds import TEXT_KINDS
    from data_prep.tokenizer_training import TrainingOptions

    is_pegasus = arguments.family == PEGASUS
    newline = arguments.newline or (PIECE if is_pegasus else SPACE)
    if newline == PIECE and not is_pegasus:
        raise ConfigError(
            "only the pegasus family has a piece for a line end",
            seen=f"--newline piece --family {arguments.family}",
            needed="--newline space, as in the original BigBird",
            change="--newline or --family",
        )
    return TrainingOptions(
        vocab_size=arguments.vocab_size,
        max_sentences=arguments.max_sentences,
        character_coverage=arguments.character_coverage,
        fields=fields_of(arguments),
        default_kind=default_kind(arguments),
        text_kind=TEXT_KINDS[arguments.documents],
        skip_bad_records=arguments.on_error == "skip",
        family=FAMILIES[arguments.family],
        normalization=arguments.normalization,
        model_type=arguments.model,
        newline=newline,
    )


def _refuse_training_options(
    arguments: argparse.Namespace, option: str, more: dict[str, Any] | None = None
) -> None:
    """Reject options that only affect training, and ``more``, next to ``option``."""
    given = ["INPUT"] if arguments.inputs else []
    for name, default in (arguments.training_defaults | (more or {})).items():
        if getattr(arguments, name) != default:
            given.append("--" + name.replace("_", "-"))
    if given:
        raise ConfigError(
            "options without effect",
            seen=f"{option} with {', '.join(given)}",
            needed=f"{option} or training options, not both",
            change=f"leave out {option}, or {', '.join(given)}",
        )
