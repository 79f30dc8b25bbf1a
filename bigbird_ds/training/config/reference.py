"""Config reference in Markdown: ``python -m bigbird_ds.training.config.reference``.

``docs/config.md`` is its output; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bigbird_ds.training.config.keys import REQUIRED, default_text, section_of
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.deepspeed.keys import (
    DECIDED_ELSEWHERE,
    PASSED_ON,
    PASSED_ON_IN,
    REFUSED,
)

_INTRODUCTION = """# Run config

A YAML file; any key can be set on the command line as `key.sub=value`, the value in YAML. File
names are relative to the current folder; a JSON file that the run config names may also lie in a
folder above the config's own, so the shipped configs work from any folder. Unknown keys are errors.

`launch/pretrain.py CONFIG --print-config` validates everything that needs neither data nor
tokenizer, prints the resolved config with the origin of each value (default, file or command
line), and exits. `bigbird-ds plan CONFIG` also checks data and tokenizer.

The files in `configs/run` explain each of their keys. `configs/run/schema.json` is a JSON schema:
an editor with a YAML language server completes keys and marks mistakes in any file that begins with
`# yaml-language-server: $schema=PATH`.

(Written by `python -m bigbird_ds.training.config.reference`.)
"""


def config_reference() -> str:
    """The whole page."""
    sections = [_INTRODUCTION, "## Top-level keys", _table(_top_rows())]
    for name, field in RunConfig.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            sections += [f"## `{name}`", _table(_rows(section, f"{name}."))]
    passed = ", ".join(f"`{key}`" for key in PASSED_ON)
    decided = [(f"`{key}`", value) for key, value in DECIDED_ELSEWHERE.items()]
    sections += [
        "## DeepSpeed's own keys",
        "The default is ZeRO-1; `deepspeed.` keys on the command line change it. A mapping or a "
        "file "
        "replaces the default: without `zero_optimization.stage` the stage is DeepSpeed's default, "
        "ZeRO-0. `bigbird-ds plan` and the first log lines show the stage.",
        f"`deepspeed` accepts {passed}; they mean what they mean in DeepSpeed. The keys below are "
        'set by the run config; a DeepSpeed file may omit them or say `"auto"`:',
        "\n".join(
            ["| DeepSpeed key | set by |", "|---|---|"]
            + [f"| {key} | {value} |" for key, value in decided]
        ),
        "In the sections, these are passed on (tested with DeepSpeed 0.19.8: training, saving and "
        'resuming). `"auto"` sizes of `zero_optimization` become those of the Hugging Face trainer '
        "where `model` gives `hidden_size` or `d_model`.",
        "\n".join(
            ["| section | keys |", "|---|---|"]
            + [
                f"| `{section}` | {', '.join(f'`{key}`' for key in keys)} |"
                for section, keys in PASSED_ON_IN.items()
            ]
        ),
        "All other keys of DeepSpeed are refused, unless they have their default:",
        "\n".join(
            ["| refused | why |", "|---|---|"]
            + [f"| {', '.join(keys)} | {reason} |" for reason, keys in _refused().items()]
        ),
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _refused() -> dict[str, list[str]]:
    """The refused keys by reason."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in REFUSED.items():
        by_reason.setdefault(reason, []).append(f"`{key}`")
    return by_reason


def _top_rows() -> Iterator[tuple[str, str, str]]:
    for name, field in RunConfig.model_fields.items():
        if section_of(field.annotation) is None:
            yield f"`{name}`", _default(field), field.description or ""


def _rows(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in section.model_fields.items():
        yield f"`{prefix}{name}`", _default(field), field.description or ""


def _default(field: FieldInfo) -> str:
    text = default_text(field)
    return text if text == REQUIRED else f"`{text}`"


def _table(rows: Iterator[tuple[str, str, str]]) -> str:
    lines = [f"| {key} | {default} | {text} |" for key, default, text in rows]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *lines])


if __name__ == "__main__":
    print(config_reference(), end="")
