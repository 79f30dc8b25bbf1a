"""``bigbird-ds shard``: write documents as WebDataset shards."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bigbird_ds.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE, ConfigError
from bigbird_ds.sizes import parse_size

if TYPE_CHECKING:
    from data_prep.input_kinds import Kind
    from data_prep.records import Fields


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input_arguments(parser)
    parser.add_argument(
        "--tokenizer", type=Path, required=True, metavar="DIR", help="tokenizer folder"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder to create"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="worker processes; the output is the same for any number",
    )
    parser.add_argument(
        "--part",
        metavar="I/N",
        help="write part I of N; the last part to finish writes the manifest",
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="fraction of the documents for the validation split, chosen by a hash of the text",
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume an interrupted job; finished shards are kept"
    )
    parser.add_argument(
        "--min-tokens", type=int, default=1, metavar="N", help="drop documents with fewer tokens"
    )
    parser.add_argument(
        "--sentences",
        default="rule",
        metavar="HOW",
        help="how to split sentences: rule (punctuation), newline (one sentence per line), or"
        " module:function, your function that returns the (start, end) offsets of a text's "
        "sentences",
    )
    parser.add_argument(
        "--filter",
        metavar="MODULE:FUNCTION",
        help="your function that is called with each document and returns the text to keep, or"
        " Drop(reason)",
    )
    parser.add_argument(
        "--duplicates",
        choices=("drop", "keep"),
        default="drop",
        help="what to do with a document whose text, ignoring white space, occurred before",
    )
    parser.add_argument(
        "--max-unknown",
        type=float,
        default=1.0,
        metavar="F",
        help="drop documents with a larger fraction of characters unknown to the tokenizer",
    )
    parser.add_argument(
        "--id-field",
        metavar="A.B",
        help="field that holds a record's id; default: a hash of the text",
    )
    parser.add_argument("--unit-size", default="64M", metavar="SIZE", help="input size per shard")


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that describe the input documents."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="files, folders, globs, URLs of these, or - for JSON lines on standard input: .txt"
        " (one document per file), .jsonl, .ndjson or .json (one object per line), .fa or .fasta"
        " (one sequence per record), each also as .gz, .zst, .xz or .bz2; .parquet, .arrow, a"
        " saved datasets folder",
    )
    parser.add_argument(
        "--format",
        choices=("text", "jsonl", "parquet", "fasta"),
        help="format of files without a known suffix; default: such files are skipped",
    )
    parser.add_argument(
        "--documents",
        choices=("file", "line", "blank-line"),
        default="file",
        help="documents in .txt files: one per file, one per line, or separated by blank lines",
    )
    parser.add_argument(
        "--text-field",
        default="text",
        metavar="A.B",
        help="field that holds a record's text: a string or a list of strings (paragraphs)",
    )
    parser.add_argument(
        "--encoding-errors",
        choices=("strict", "replace"),
        default="strict",
        help="invalid UTF-8: strict makes it a bad record, replace writes U+FFFD",
    )
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="what to do with a bad record",
    )
    parser.add_argument(
        "--case",
        choices=("keep", "upper"),
        default="keep",
        help="letters of sequences (FASTA): upper folds the lower case that marks repeats",
    )
    parser.add_argument(
        "--n-runs",
        choices=("keep", "cut"),
        default="keep",
        help="runs of 10 or more N in sequences (FASTA): cut makes a document of each side",
    )


def run(arguments: argparse.Namespace) -> int:
    from bigbird_ds import log
    from data_prep.input_kinds import TEXT_KINDS
    from data_prep.shard_job import ShardOptions, write_shards
    from data_prep.unit_job import DocumentOptions
    from data_prep.worker_pool import WorkerDied

    check_range("--workers", arguments.workers, arguments.workers >= 1, "1 or more")
    check_range("--min-tokens", arguments.min_tokens, arguments.min_tokens >= 1, "1 or more")
    fraction = arguments.validation_fraction
    check_range("--validation-fraction", fraction, 0 <= fraction < 1, "0 or more, below 1")
    unknown = arguments.max_unknown
    check_range("--max-unknown", unknown, 0 <= unknown <= 1, "0 to 1")
    require_inputs(arguments.inputs)
    options = ShardOptions(
        DocumentOptions(
            fields=fields_of(arguments, arguments.id_field),
            min_tokens=arguments.min_tokens,
            validation_fraction=fraction,
            max_unknown=unknown,
            sentences=arguments.sentences,
            filter=arguments.filter,
            keep_duplicates=arguments.duplicates == "keep",
            skip_bad_records=arguments.on_error == "skip",
        ),
        unit_bytes=parse_size("--unit-size", arguments.unit_size),
        workers=arguments.workers,
        part=None if arguments.part is None else _parse_part(arguments.part),
        resume=arguments.resume,
        default_kind=default_kind(arguments),
        text_kind=TEXT_KINDS[arguments.documents],
    )
    log.setup()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop request
    try:
        write_shards(arguments.inputs, arguments.tokenizer, arguments.out, options)
    except KeyboardInterrupt:
        print("stopped; run the same command with --resume to continue", file=sys.stderr)
        return EXIT_REQUEUE
    except WorkerDied as error:
        print(
            f"error: {error}, most often for want of memory (use fewer --workers); what is"
            " finished is kept: run again with --resume",
            file=sys.stderr,
        )
        return EXIT_FAILED
    return EXIT_DONE


def default_kind(arguments: argparse.Namespace) -> Kind | None:
    """The kind of inputs whose names do not show it."""
    from data_prep.input_kinds import Kind

    return None if arguments.format is None else Kind(arguments.format)


def fields_of(arguments: argparse.Namespace, id_field: str | None = None) -> Fields:
    """How records are read."""
    from data_prep.records import Fields

    return Fields(
        arguments.text_field,
        id_field,
        arguments.encoding_errors,
        upper_case=arguments.case == "upper",
        cut_gaps=arguments.n_runs == "cut",
    )


def require_inputs(inputs: list[str]) -> None:
    """Raise ConfigError if there is no INPUT."""
    if not inputs:
        raise ConfigError(
            "no input given",
            seen="no INPUT",
            needed="files, folders, globs or -",
            change="the command line",
        )


def check_range(option: str, seen: object, is_valid: bool, needed: str) -> None:
    """Raise ConfigError unless the value of an option is in its range."""
    if not is_valid:
        raise ConfigError(f"{option} is out of range", seen=seen, needed=needed, change=option)


def _parse_part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(
            "invalid --part", seen=text, needed="I/N with 1 <= I <= N, e.g. 2/8", change="--part"
        )
    return int(match[1]), int(match[2])
