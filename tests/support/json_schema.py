"""A small judge of JSON schemas: the keywords that ``configs/run/schema.json`` uses, no others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_WITHOUT_EFFECT = {"$schema", "$defs", "title", "description", "default"}


def mistakes(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """What of ``value`` the schema refuses, each with the dotted key."""
    return list(_mistakes(value, schema, root, at))


def _mistakes(value: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    for word, rule in schema.items():
        if word in _WITHOUT_EFFECT:
            continue
        assert word in _RULES, f"{word}: not known to this judge"
        yield from _RULES[word](value, rule, schema, root, at)


def _type(value: Any, rule: str, schema: Any, root: Any, at: str) -> Iterator[str]:
    is_bool = isinstance(value, bool) and rule != "boolean"
    if is_bool or not isinstance(value, _TYPES[rule]):
        yield f"{at}: {value!r} is not {rule}"


def _ref(value: Any, rule: str, schema: Any, root: Any, at: str) -> Iterator[str]:
    yield from _mistakes(value, root["$defs"][rule.removeprefix("#/$defs/")], root, at)


def _any_of(value: Any, rule: list[Any], schema: Any, root: Any, at: str) -> Iterator[str]:
    if all(mistakes(value, option, root, at) for option in rule):
        yield f"{at}: {value!r} is none of the forms"


def _one_of(value: Any, rule: list[Any], schema: Any, root: Any, at: str) -> Iterator[str]:
    if value not in rule:
        yield f"{at}: {value!r} is not one of {rule}"


def _required(value: Any, rule: list[str], schema: Any, root: Any, at: str) -> Iterator[str]:
    yield from (f"{at}: no {name}" for name in rule if name not in value)


def _properties(value: Any, rule: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name in value.keys() & rule.keys():
            yield from _mistakes(value[name], rule[name], root, f"{at}.{name}".lstrip("."))


def _additional(value: Any, rule: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    if rule is True or not isinstance(value, dict):
        return
    for name in value.keys() - schema.get("properties", {}).keys():
        where = f"{at}.{name}".lstrip(".")
        yield from (
            [f"{where}: unknown"] if rule is False else _mistakes(value[name], rule, root, where)
        )


def _items(value: Any, rule: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    rules = rule if isinstance(rule, list) else [rule] * len(value)
    for inner, each in zip(value, rules, strict=False):
        yield from _mistakes(inner, each, root, at)


def _bound(sign: int, of_size: bool, is_strict: bool) -> Any:
    def check(value: Any, rule: float, schema: Any, root: Any, at: str) -> Iterator[str]:
        if not isinstance(value, list if of_size else int | float):
            return
        size = len(value) if of_size else value
        far = math.copysign(1, sign) * (size - rule)
        if far < 0 or (is_strict and far == 0):
            yield f"{at}: {value!r} against the bound {rule}"

    return check


_RULES: dict[str, Any] = {
    "type": _type,
    "$ref": _ref,
    "anyOf": _any_of,
    "enum": _one_of,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "prefixItems": _items,
    "minimum": _bound(1, False, False),
    "exclusiveMinimum": _bound(1, False, True),
    "maximum": _bound(-1, False, False),
    "exclusiveMaximum": _bound(-1, False, True),
    "minItems": _bound(1, True, False),
    "maxItems": _bound(-1, True, False),
}
