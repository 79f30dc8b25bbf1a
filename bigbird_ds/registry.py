"""One form for what a config picks by name: objectives, styles, backends, optimizers, schedules.

What comes along is in the file of its registry. Another one is a file that ends with
``REGISTRY.add(...)`` and a line that imports it (docs/extending.md). All else asks the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from bigbird_ds.errors import ConfigError, nearest


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Mapping[str, Entry]):
    """Entries by name, in the order in which they were added.

    Args:
        kind: what an entry is, for messages.
        option: the key of a config that picks one.
        entries: the first ones.
    """

    def __init__(self, kind: str, option: str, entries: Iterable[Entry] = ()) -> None:
        self.kind, self.option = kind, option
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> Entry:
        """Add an entry. A name is taken once."""
        assert entry.name not in self._entries, f"there is a {self.kind} {entry.name} already"
        self._entries[entry.name] = entry
        return entry

    def named(self, name: str, also: Iterable[str] = ()) -> Entry:
        """The entry of this name.

        Args:
            also: names that would be right as well, for the message.

        Raises:
            ConfigError: there is none; the nearest name is told.
        """
        if name not in self._entries:
            known = [*also, *self._entries]
            guess = nearest(str(name), known)
            raise ConfigError(
                f"no such {self.kind}",
                seen=repr(name) + (f" (did you mean {guess!r}?)" if guess else ""),
                needed="one of " + ", ".join(known),
                change=self.option,
            )
        return self._entries[name]

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
