"""Registries of what a config selects by name: objectives, styles, backends, optimizers, schedules.

Built-in entries are in the file of their registry. To add an entry, write a file that ends with
``REGISTRY.add(...)``, and import it in one line (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from bigbird_ds.errors import ConfigError, nearest


class Named(Protocol):
    """An entry of a registry."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Mapping[str, Entry]):
    """Entries by name, in the order in which they were added.

    Args:
        kind: what an entry is, for error messages.
        option: the config key that selects one.
        entries: the initial entries.
    """

    def __init__(self, kind: str, option: str, entries: Iterable[Entry] = ()) -> None:
        self.kind, self.option = kind, option
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> Entry:
        """Add an entry, whose name must be new, and return it."""
        assert entry.name not in self._entries, f"duplicate {self.kind}: {entry.name}"
        self._entries[entry.name] = entry
        return entry

    def named(self, name: str, also: Iterable[str] = ()) -> Entry:
        """The entry of this name.

        Args:
            also: other valid names, for the error message.

        Raises:
            ConfigError: there is no such entry; the error suggests the nearest name.
        """
        if name not in self._entries:
            known = [*also, *self._entries]
            guess = nearest(str(name), known)
            raise ConfigError(
                f"unknown {self.kind}",
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
