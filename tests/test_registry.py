"""What a config selects by name: entries in order; an unknown name gets the closest suggestion."""

from types import SimpleNamespace

import pytest

from bigbird_ds.errors import ConfigError
from bigbird_ds.registry import Registry


def colours() -> Registry[SimpleNamespace]:
    entries = [SimpleNamespace(name="red"), SimpleNamespace(name="blue")]
    return Registry("colour", "paint.colour", entries)


def test_an_added_entry_is_found_by_its_name_and_listed_last() -> None:
    registry = colours()
    green = registry.add(SimpleNamespace(name="green"))
    assert list(registry) == ["red", "blue", "green"] and registry.named("green") is green


def test_a_name_is_taken_once() -> None:
    with pytest.raises(AssertionError, match="duplicate colour: red"):
        colours().add(SimpleNamespace(name="red"))


def test_an_unknown_name_gets_the_closest_match_and_the_option_to_change() -> None:
    with pytest.raises(ConfigError, match="unknown colour") as caught:
        colours().named("bleu", also=["auto"])
    assert caught.value.seen == "'bleu' (did you mean 'blue'?)"
    assert caught.value.needed == "one of auto, red, blue"
    assert caught.value.change == "paint.colour"
