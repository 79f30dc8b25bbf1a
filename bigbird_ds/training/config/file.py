"""From a YAML file and ``key.sub=value`` words to a checked ``RunConfig``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from pydantic import BaseModel, ValidationError

from bigbird_ds import files
from bigbird_ds.errors import ConfigError, UserError, nearest
from bigbird_ds.hub.model_folder import require_model_folder
from bigbird_ds.models.hub_names import looks_like_hub_name
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.config.strict_yaml import parse_yaml

MODEL_CONFIG_NAME = "config.json"
# Keys whose value may name a JSON file that holds the mapping, and what the name may be of; their
# sub-keys are not ours to list.
FILE_KEYS = {"model": "a folder in Hub format, or a JSON file", "deepspeed": "a JSON file"}


def load_run_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run config.

    Args:
        path: a YAML file.
        overrides: words ``key.sub=value``, the value in YAML; they win over the file, also inside
            the JSON files that ``model`` and ``deepspeed`` may name, and inside the default of
            ``deepspeed``. File names are relative to the current folder.

    Raises:
        ConfigError: no such file, no YAML mapping, an unknown key (the nearest known one is
            named), a value of the wrong kind, values that contradict each other, or an override
            that is given twice.
    """
    settings = _read_yaml(Path(path))
    words = [_parse_override(word) for word in overrides]
    _require_each_key_once([keys for keys, _ in words], overrides)
    for keys, value in words:
        if len(keys) == 1:
            settings[keys[0]] = value
    _expand_files(settings)
    # Single keys go into the default; a mapping or file that was given stands for itself.
    settings.setdefault("deepspeed", default_deepspeed())
    for keys, value in words:
        if len(keys) > 1:
            _set(settings, keys, value)
    return check_run_config(settings, str(path))


def check_run_config(settings: dict[str, Any], origin: str) -> RunConfig:
    """Validate a mapping; ``origin`` names where it came from in the error."""
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as cause:
        raise _explain(cause, origin) from cause


def dump_run_config(config: RunConfig) -> str:
    """The resolved config as YAML, which ``load_run_config`` reads back to the same."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def default_deepspeed() -> dict[str, Any]:
    """What ``deepspeed`` is where a run config says nothing of it."""
    value: dict[str, Any] = RunConfig.model_fields["deepspeed"].get_default(
        call_default_factory=True
    )
    return value


def known_keys() -> list[str]:
    """All dotted keys of a run config."""
    return list(_dotted(RunConfig, ""))


def _dotted(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        if _is_section(field.annotation):
            yield from _dotted(field.annotation, f"{prefix}{name}.")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(
            "the run config is missing",
            seen=f"no file {path}",
            needed="a YAML file such as configs/run/tiny_cpu.yaml",
            change="the first argument",
        ) from None
    except (UnicodeDecodeError, IsADirectoryError, yaml.YAMLError) as cause:
        raise ConfigError(
            "the run config is no YAML",
            seen=f"{path}: {' '.join(str(cause).split())}",
            needed="a YAML file",
            change="the file",
        ) from cause
    if not isinstance(settings, dict):
        raise ConfigError(
            "the run config is no mapping",
            seen=f"{path}: {type(settings).__name__}",
            needed="keys such as model:, data:, batch:, train:, output:",
            change="the file",
        )
    return settings


def _parse_override(word: str) -> tuple[list[str], Any]:
    key, equals, text = word.partition("=")
    keys = key.split(".")
    if not equals or not all(keys):
        raise ConfigError(
            "an override is not of the form key.sub=value",
            seen=repr(word),
            needed="for example train.steps=100",
            change="the command line",
        )
    try:
        return keys, parse_yaml(text, repr(word))
    except yaml.YAMLError as cause:
        raise ConfigError(
            "the value of an override is no YAML",
            seen=repr(word),
            needed="a number, a word, or a quoted text",
            change="the command line",
        ) from cause


def _require_each_key_once(keys: list[list[str]], overrides: Sequence[str]) -> None:
    for first, second in itertools.combinations(range(len(keys)), 2):
        if keys[first] == keys[second]:
            raise ConfigError(
                "an override is given twice",
                seen=f"{overrides[first]} and {overrides[second]}",
                needed="each key once (the first would have no effect)",
                change="the command line, or the script that adds to it",
            )


def _set(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    inner = settings
    for key in keys[:-1]:
        following = inner.setdefault(key, {})
        if not isinstance(following, dict):
            raise ConfigError(
                "an override goes into a value that has no keys",
                seen=f"{'.'.join(keys)} where {key} is {following!r}",
                needed=f"{key} a mapping",
                change="the command line or the run config",
            )
        inner = following
    inner[keys[-1]] = value


def _expand_files(settings: dict[str, Any]) -> None:
    """Replace the file names under ``model`` and ``deepspeed`` by what the files hold."""
    model = settings.get("model")
    if isinstance(model, str) and (Path(model).is_dir() or looks_like_hub_name(model)):
        require_model_folder(Path(model), ConfigError, "model")
        weights = ("model.safetensors", "model.safetensors.index.json")
        if any((Path(model) / name).is_file() for name in weights):
            settings["initial_weights"] = model
        settings["model"] = str(Path(model) / MODEL_CONFIG_NAME)
    for key in FILE_KEYS:
        name = settings.get(key)
        if isinstance(name, str):
            if not Path(name).exists() or Path(name).is_dir():
                raise ConfigError(
                    f"the file that `{key}` names is missing",
                    seen=f"no file {name}",
                    needed=FILE_KEYS[key],
                    change=key,
                )
            value = files.read_json(Path(name), ConfigError, f"the file that `{key}` names")
            if not isinstance(value, dict):
                raise ConfigError(
                    f"the file that `{key}` names holds no mapping",
                    seen=f"{name}: {type(value).__name__}",
                    needed="a JSON object",
                    change=key,
                )
            settings[key] = value


def _explain(cause: ValidationError, origin: str) -> UserError:
    """The first problem that pydantic found, in the project's form."""
    first = cause.errors(include_url=False)[0]
    key = _key_of(first["loc"])
    others = cause.error_count() - 1
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        near = nearest(key, known_keys())
        siblings = [known for known in known_keys() if known.count(".") == key.count(".")]
        return ConfigError(
            f"unknown key in the run config{more}",
            seen=f"{key} in {origin}",
            needed=f"{near} (the nearest known key)" if near else "one of " + ", ".join(siblings),
            change=key,
        )
    if first["type"] == "missing":
        return ConfigError(
            f"the run config lacks a key{more}",
            seen=f"no {key} in {origin}",
            needed=f"{key}: {_description(key)}",
            change=key,
        )
    return ConfigError(
        f"a value in the run config is of the wrong kind{more}",
        seen=f"{key}={json.dumps(first['input'], default=str)}",
        needed=f"{_description(key)} ({first['msg'][0].lower()}{first['msg'][1:]})",
        change=key,
    )


def _key_of(location: tuple[int | str, ...]) -> str:
    """The dotted key of a problem; where in a value, or in which kind of value, is left out."""
    section: type[BaseModel] = RunConfig
    parts: list[str] = []
    for part in map(str, location):
        parts.append(part)
        field = section.model_fields.get(part)
        if field is None or not _is_section(field.annotation):
            break
        section = field.annotation
    return ".".join(parts)


def _is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _description(key: str) -> str:
    section: type[BaseModel] = RunConfig
    *sections, last = key.split(".")
    for name in sections:
        annotation = section.model_fields[name].annotation
        assert _is_section(annotation)
        section = annotation
    field = section.model_fields.get(last)
    return (field.description if field else None) or "a section with its own keys"
