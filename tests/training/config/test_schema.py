"""``configs/run/schema.json`` is that of the code, takes the shipped configs, refuses mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.json_schema import mistakes
from support.processes import REPOSITORY

from bigbird_ds.cli.main import main
from bigbird_ds.training.config.annotate import SCHEMA, shipped_configs
from bigbird_ds.training.config.schema import run_config_schema
from bigbird_ds.training.config.strict_yaml import parse_yaml

TINY = REPOSITORY / "configs" / "run" / "tiny_cpu.yaml"


def read(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    return settings


def test_the_schema_beside_the_configs_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == run_config_schema(), "run: make docs"


@pytest.mark.parametrize("path", shipped_configs(), ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    schema = run_config_schema()
    assert mistakes(read(path), schema, schema) == []


@pytest.mark.parametrize(
    ("section", "key", "value", "mistake"),
    [
        ("train", "stpes", 4, "train.stpes: unknown"),
        ("train", "steps", 0, "train.steps: 0 against the bound 0"),
        ("train", "steps", "many", "train.steps: 'many' is not integer"),
        ("objective", "name", "mlmm", "objective.name: 'mlmm' is not one of"),
        ("deepspeed", "bf16", {"enabled": True}, None),
        ("deepspeed", "wall_clock_breakdown", 3, "deepspeed: "),
        ("optimizer", "betas", [0.9, 0.95], None),
        ("optimizer", "betas", [0.9], "optimizer.betas: [0.9] against the bound 2"),
    ],
)
def test_mistakes_are_refused_where_they_stand(
    section: str, key: str, value: Any, mistake: str | None
) -> None:
    schema, settings = run_config_schema(), read(TINY)
    settings.setdefault(section, {})[key] = value
    found = mistakes(settings, schema, schema)
    assert found[0].startswith(mistake) if mistake else not found


def test_the_editor_line_leads_to_the_schema_in_a_checkout_and_after_init(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path)]) == 0
    for path in [*shipped_configs(), *(tmp_path / "configs" / "run").glob("*.yaml")]:
        first, _, _ = path.read_text(encoding="utf-8").partition("\n")
        name = first.removeprefix("# yaml-language-server: $schema=")
        assert name != first
        assert (path.parent / name).read_bytes() == SCHEMA.read_bytes()


def test_every_property_says_what_it_means() -> None:
    schema = run_config_schema()
    for section in [schema, *schema["$defs"].values()]:
        assert all("description" in each for each in section["properties"].values())
