"""An argument parser that reports invalid arguments as user errors."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from bigbird_ds.errors import ConfigError, nearest

OVERRIDES_METAVAR = "key.sub=value"
_UNKNOWN = "unrecognized arguments: "  # prefix of argparse's message


def package_version() -> str:
    """The version of the installed package."""
    from importlib.metadata import version

    return version("bigbird-ds")


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises ConfigError and suggests the nearest known option."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._options: list[str] = []
        self._takes_overrides = False
        super().__init__(*arguments, **keywords)

    def add_argument(self, *names: Any, **keywords: Any) -> argparse.Action:
        self._options += [name for name in names if name.startswith("--")]
        self._takes_overrides |= keywords.get("metavar") == OVERRIDES_METAVAR
        return super().add_argument(*names, **keywords)

    def error(self, message: str) -> NoReturn:
        problem, seen = "invalid command line", message
        needed = " ".join(self.format_usage().removeprefix("usage: ").split())
        if message.startswith(_UNKNOWN):
            words = message.removeprefix(_UNKNOWN).split()
            problem, seen = "too many arguments", words[0]
            if option := next((word for word in words if word.startswith("-")), None):
                problem, seen, needed = "unknown option", option, self._known_options(option)
        raise ConfigError(
            problem,
            seen=seen,
            needed=needed,
            change=f"the command line (`{self.prog} --help` explains it)",
        )

    def _known_options(self, unknown: str) -> str:
        """The option nearest to ``unknown``, or all options; and how to set run config keys."""
        names = {option.lstrip("-"): option for option in self._options}
        near = nearest(unknown.lstrip("-").partition("=")[0], names)
        known = f"{names[near]} (closest match)" if near else "one of " + ", ".join(self._options)
        if self._takes_overrides:
            known += "; run config keys have no dashes, e.g. train.steps=100"
        return known
