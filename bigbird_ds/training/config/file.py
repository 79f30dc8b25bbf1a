"""Read a YAML file and ``key.sub=value`` overrides into a validated ``RunConfig``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bigbird_ds import files
from bigbird_ds.errors import ConfigError, absent
from bigbird_ds.hub.model_folder import require_model_folder
from bigbird_ds.models.hub_names import looks_like_hub_name
from bigbird_ds.models.weight_files import has_weights, how_to_read, other_weights
from bigbird_ds.training.config.explain import explain
from bigbird_ds.training.config.jobs import fill_in_job
from bigbird_ds.training.config.origins import COMMAND_LINE, leaves, replace_origin, with_origins
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.config.strict_yaml import parse_yaml

MODEL_CONFIG_NAME = "config.json"
# Keys whose value may be a path instead of a mapping -> what the path may be. Their sub-keys are
# not defined here.
FILE_KEYS = {"model": "a folder in Hub format, or a JSON file", "deepspeed": "a JSON file"}


def load_run_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run config of :func:`load_with_origins`, without the origins."""
    return load_with_origins(path, overrides)[0]


def load_with_origins(
    path: str | Path, overrides: Sequence[str] = ()
) -> tuple[RunConfig, dict[str, str]]:
    """Read a run config, and where its values come from.

    Args:
        path: a YAML file.
        overrides: ``key.sub=value``, with the value in YAML. They take precedence over the file,
            over the JSON files that ``model`` and ``deepspeed`` may name, and over the default of
            ``deepspeed``. File names are relative to the current folder; the JSON files that the
            run config names may also lie in a folder above its own. A variable of
            ``jobs.JOB_VARIABLES`` in braces stands for its value, here and in the file.

    Returns:
        The config; and by dotted key the file that a value comes from, or ``command line``. Keys
        that are not in it have their default.

    Raises:
        ConfigError: the file is missing or not a YAML mapping, a key is unknown (the error names
            the nearest known one), a value has the wrong type, values are inconsistent, or an
            override is given twice, or a value has the place of a job variable that is not set.
    """
    settings = fill_in_job(_read_yaml(Path(path)))
    origins = dict.fromkeys(leaves(settings), str(path))
    words = [_parse_override(fill_in_job(word)) for word in overrides]
    _require_each_key_once([keys for keys, _ in words], overrides)
    for keys, value in words:
        if len(keys) == 1:
            settings[keys[0]] = value
            replace_origin(origins, keys[0], value, COMMAND_LINE)
    _find_files(settings, origins, Path(path))
    _expand_files(settings, origins)
    # The default applies unless a mapping or file was given; single keys are set in either.
    settings.setdefault("deepspeed", default_deepspeed())
    for keys, value in words:
        if len(keys) > 1:
            _set(settings, keys, value)
            replace_origin(origins, ".".join(keys), value, COMMAND_LINE)
    config = check_run_config(settings, str(path), [".".join(keys) for keys, _ in words])
    return config, origins


def check_run_config(
    settings: dict[str, Any], origin: str, overridden: Sequence[str] = ()
) -> RunConfig:
    """Validate a mapping.

    Args:
        settings: the mapping.
        origin: where it comes from, for error messages.
        overridden: dotted keys that the command line sets instead.
    """
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as cause:
        raise explain(cause, origin, overridden) from cause


def dump_run_config(config: RunConfig, origins: Mapping[str, str] | None = None) -> str:
    """The resolved config as YAML; ``load_run_config`` reads back the same config.

    Args:
        origins: of ``load_with_origins``, to say after each value where it comes from.
    """
    # One line a value, which may have a comment after it.
    text = yaml.safe_dump(
        config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text if origins is None else with_origins(text, origins)


def default_deepspeed() -> dict[str, Any]:
    """The default of ``deepspeed``."""
    value: dict[str, Any] = RunConfig.model_fields["deepspeed"].get_default(
        call_default_factory=True
    )
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(
            "the run config is missing",
            seen=absent(path),
            needed="a YAML file such as configs/run/tiny_cpu.yaml",
            change="the first argument",
        ) from None
    except (UnicodeDecodeError, IsADirectoryError, yaml.YAMLError) as cause:
        has_tab = "'\\t' that cannot start any token" in str(cause)
        raise ConfigError(
            "the run config is not valid YAML",
            seen=f"{path}: {' '.join(str(cause).split())}",
            needed="spaces instead of tabs" if has_tab else "a YAML file",
            change="the file",
        ) from cause
    if not isinstance(settings, dict):
        raise ConfigError(
            "the run config is not a mapping",
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
            "invalid override",
            seen=repr(word),
            needed="key.sub=value, e.g. train.steps=100",
            change="the command line",
        )
    try:
        value, node = parse_yaml(text, repr(word)), yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as cause:
        raise ConfigError(
            "the value of an override is not valid YAML",
            seen=repr(word),
            needed="a number, a word or a quoted string",
            change="the command line",
        ) from cause
    if node is not None and (comment := text[node.end_mark.index :].strip()):
        raise ConfigError(
            "a part of an override is a comment",
            seen=f"{word!r}, in which {comment!r} would have no effect",
            needed="quotes around a value with #, within those of the shell",
            change="the command line",
        )
    return keys, value


def _require_each_key_once(keys: list[list[str]], overrides: Sequence[str]) -> None:
    for first, second in itertools.combinations(range(len(keys)), 2):
        if keys[first] == keys[second]:
            raise ConfigError(
                "duplicate override",
                seen=f"{overrides[first]} and {overrides[second]}",
                needed="each key once (the first would have no effect)",
                change="the command line, or the script that extends it",
            )


def _set(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    inner = settings
    for key in keys[:-1]:
        following = inner.setdefault(key, {})
        if not isinstance(following, dict):
            raise ConfigError(
                "an override sets a key of a value that is not a mapping",
                seen=f"{'.'.join(keys)} where {key} is {following!r}",
                needed=f"a mapping under {key}",
                change="the command line or the run config",
            )
        inner = following
    inner[keys[-1]] = value


def _find_files(settings: dict[str, Any], origins: dict[str, str], path: Path) -> None:
    """Complete the names of JSON files that are not in the current folder.

    So a shipped config, ``CHECKOUT/configs/run/NAME.yaml``, finds ``configs/model/NAME.json`` from
    any folder.
    """
    for key in FILE_KEYS:
        name = settings.get(key)
        if not isinstance(name, str) or origins.get(key) != str(path) or Path(name).exists():
            continue
        for folder in path.absolute().parents:
            if (folder / name).is_file():
                settings[key] = str(folder / name)
                break


def _expand_files(settings: dict[str, Any], origins: dict[str, str]) -> None:
    """Replace file names under ``model`` and ``deepspeed`` with the contents of the files."""
    model = settings.get("model")
    if isinstance(model, str) and (Path(model).is_dir() or looks_like_hub_name(model)):
        require_model_folder(Path(model), ConfigError, "model")
        if has_weights(Path(model)):
            settings["initial_weights"] = model
            origins["initial_weights"] = origins["model"]
        elif others := other_weights(Path(model)):
            raise ConfigError(
                "unsupported format of the weights",
                seen=f"model={model} with {', '.join(others)}",
                needed="model.safetensors, or sharded safetensors with an index",
                change=f"model: {how_to_read(Path(model))}; or the path of its config.json, to "
                "train from scratch",
            )
        settings["model"] = str(Path(model) / MODEL_CONFIG_NAME)
    for key in FILE_KEYS:
        name = settings.get(key)
        if isinstance(name, str):
            if not Path(name).exists() or Path(name).is_dir():
                raise ConfigError(
                    f"the file given as `{key}` is missing",
                    seen=absent(name),
                    needed=FILE_KEYS[key],
                    change=key,
                )
            value = files.read_json(Path(name), ConfigError, f"the file given as `{key}`")
            if not isinstance(value, dict):
                raise ConfigError(
                    f"the file given as `{key}` is not a mapping",
                    seen=f"{name}: {type(value).__name__}",
                    needed="a JSON object",
                    change=key,
                )
            settings[key] = value
            replace_origin(origins, key, value, name)
