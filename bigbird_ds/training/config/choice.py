"""Sections of the run config whose ``name`` picks an entry of a registry.

The keys of such a section are ``name`` and the options of all entries, which may share options.
Setting an option that the chosen entry does not read is an error.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, create_model, model_validator

from bigbird_ds.errors import ConfigError
from bigbird_ds.registry import Registry
from bigbird_ds.sections import Options, Section


class Choice(Section):
    """Base of all these sections; see :func:`choice`."""

    registry: ClassVar[Registry[Any]]
    all_options: ClassVar[frozenset[str]]
    name: str

    @property
    def kind(self) -> Any:
        """The entry of the registry."""
        return self.registry[self.name]

    @property
    def options(self) -> Any:
        """The options of the entry, as an instance of its ``options_class``.

        Raises:
            ConfigError: a value is out of range.
        """
        own = self.kind.options_class
        return own(**{name: getattr(self, name) for name in own.model_fields})

    @model_validator(mode="after")
    def _check_effect(self) -> Choice:
        options: Options = self.options
        unread = self.all_options - set(type(options).model_fields) | set(options.without_effect())
        for option in type(self).model_fields:  # in order of definition
            if option in unread:
                self._refuse_where_set(option)
        return self

    def _refuse_where_set(self, option: str) -> None:
        value, section = getattr(self, option), self.registry.option.partition(".")[0]
        if value != type(self).model_fields[option].default:
            raise ConfigError(
                f"{section}.{option} has no effect on {self.name}",
                seen=f"{section}.{option}={value!r}, {section}.name={self.name}",
                needed=f"only options of {self.name}",
                change=f"leave out {section}.{option}, or change {section}.name",
            )


def choice(registry: Registry[Any], default: str) -> Any:
    """Create the base class of a section: ``name`` and the options of all entries.

    The description of an option names the entries that read it, unless all do.
    """
    summaries = "; ".join(f"{entry.name}: {entry.summary}" for entry in registry.values())
    fields: dict[str, Any] = {"name": (_one_of(registry), Field(default, description=summaries))}
    for entry in registry.values():
        for name, field in entry.options_class.model_fields.items():
            if name not in fields:
                fields[name] = (field.rebuild_annotation(), _described_with_readers(registry, name))
            known = _first_of(registry, name)
            assert repr(known) == repr(field), f"two options {registry.option}: {name} that differ"
    base = create_model(f"{registry.kind.title()}Choice", __base__=Choice, **fields)
    base.registry, base.all_options = registry, frozenset(fields) - {"name"}
    return base


def _one_of(registry: Registry[Any]) -> Any:
    return Literal.__getitem__(tuple(registry))


def _first_of(registry: Registry[Any], option: str) -> Any:
    fields = (entry.options_class.model_fields for entry in registry.values())
    return next(known[option] for known in fields if option in known)


def _described_with_readers(registry: Registry[Any], option: str) -> Any:
    """The field of an option; the description names its readers, unless all entries read it."""
    readers = [e.name for e in registry.values() if option in e.options_class.model_fields]
    field = _first_of(registry, option)
    prefix = "" if len(readers) == len(registry) else f"{', '.join(sorted(readers))}: "
    return Field(field.default, description=prefix + (field.description or ""))
