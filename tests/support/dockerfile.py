"""Read a Dockerfile, as far as the one of this project uses the language."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What a container engine passes to every command.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Instruction:
    """``RUN``, ``COPY``, ...; ``value`` is the rest, its lines joined as the shell would."""

    word: str
    value: str


def instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [Instruction(word.upper(), value) for word, value in split]


@dataclass
class State:
    """What the instructions so far set for those that follow.

    Args:
        chosen: what ``--build-arg`` would give.
    """

    chosen: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "root"
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    arguments: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The variables of a RUN line; those of ENV win over those of ARG."""
        return self.arguments | self.variables

    def read(self, instruction: Instruction) -> bool:
        """Take over an instruction that sets something; False if it is of another kind."""
        word, value = instruction.word, self.expand(instruction.value)
        if word == "ARG":
            name, _, default = value.partition("=")
            self.arguments[name] = self.chosen.get(name, default)
        elif word == "ENV":
            self.variables |= dict(pair.split("=", 1) for pair in shlex.split(value))
        elif word == "WORKDIR":
            self.folder = str(Path(self.folder, value))
        elif word == "USER":
            self.user = value
        else:
            return False
        return True

    def expand(self, text: str) -> str:
        known = self.environment()
        return re.sub(r"\$\{?(\w+)\}?", lambda match: known[match[1]], text)


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether lines of a .dockerignore leave out ``path``, which is relative to the context."""
    return any(
        fnmatch.fnmatch(Path(path).name, pattern.removeprefix("**/"))
        if pattern.startswith("**/")
        else fnmatch.fnmatch(path, pattern)
        for pattern in patterns
    )
