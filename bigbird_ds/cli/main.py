"""``bigbird-ds``: the console command; each sub-command is a module.

Only the module of the given sub-command is imported. It imports heavy packages such as torch inside
``run``, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import io
import keyword
import signal
import sys
from typing import Any

from bigbird_ds.cli.command_line import Parser, package_version
from bigbird_ds.errors import EXIT_USER_ERROR, ConfigError, UserError, nearest

# name -> one line of help; its module has add_arguments(parser) and run(arguments) -> exit code
COMMANDS = {
    "doctor": "check this machine: what is missing, what needs it and how to get it",
    "init": "write the launch scripts and configs to a folder",
    "tokenizer": "train a tokenizer on documents, or convert an existing spiece.model",
    "shard": "write documents as WebDataset shards",
    "verify": "check that shards, a tokenizer, a run, a checkpoint or an export are intact",
    "inspect": "describe shards, a tokenizer, a run, a checkpoint or an export",
    "merge": "merge shards folders written with one tokenizer into one",
    "evaluate": "loss and accuracy of a trained model on shards, also by visible length",
    "plan": "memory, steps, tokens and time of a run, before anything runs",
    "export": "export a run or checkpoint to Hub format",
    "import": "import a Hub checkpoint (BigBird, BigBirdPegasus, BERT, RoBERTa) to start from",
    "report": "write an HTML page about runs: config, curves, time, data, samples, machine",
    "plot": "plot losses, learning rate, gradient norm and throughput of runs as PNG",
    "attention": "draw a block-sparse attention pattern as PNG, or show how far it reaches",
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Appends defaults to the help of options, except None, False and empty lists."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, []):
            return action.help
        return super()._get_help_string(action)


def build_parser() -> Parser:
    """The parser of everything before the command; it knows only the commands' help lines."""
    parser = Parser(
        prog="bigbird-ds", description="Long-context pretraining of BigBird: data, runs, exports."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {package_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_line in COMMANDS.items():
        commands.add_parser(name, help=help_line)
    return parser


def command_parser(command: str) -> Parser:
    """The parser of what follows ``command``."""
    parser = Parser(
        prog=f"bigbird-ds {command}",
        description=COMMANDS[command],
        formatter_class=HelpFormatter,
    )
    _module(command).add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; a user error is printed to stderr with exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    _write_any_character()
    try:
        if argv and argv[0].startswith("-"):
            build_parser().parse_args(argv[:1])
        command, *words = argv or [""]
        if command not in COMMANDS:
            raise _unknown_command(command)
        # Options may stand between positional arguments: `plan CONFIG --ranks 8 train.steps=9`.
        arguments = command_parser(command).parse_intermixed_args(words)
        exit_code: int = _module(command).run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 0
    return exit_code


def _write_any_character() -> None:
    """Escape characters that the terminal's encoding lacks (``LC_ALL=POSIX``)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unknown_command(word: str | None) -> ConfigError:
    near = nearest(word, COMMANDS) if word else None
    return ConfigError(
        "unknown command" if word else "no command given",
        seen=f"bigbird-ds {word or ''}".strip(),
        needed=f"{near} (closest match)" if near else "one of " + ", ".join(COMMANDS),
        change="the command line (`bigbird-ds --help` explains it)",
    )


def _module(command: str) -> Any:
    """``bigbird_ds.cli.<command>``, with an underscore appended to Python keywords."""
    suffix = "_" if keyword.iskeyword(command) else ""
    return importlib.import_module(f"bigbird_ds.cli.{command}{suffix}")


if __name__ == "__main__":
    sys.exit(main())
