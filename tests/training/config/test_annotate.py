"""The comments of the shipped run configs are those of the code, and every key has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigbird_ds.training.config.annotate import annotate_file, annotated, shipped_configs
from bigbird_ds.training.config.keys import described_keys
from bigbird_ds.training.config.run_config import RunConfig


@pytest.mark.parametrize("path", shipped_configs(), ids=lambda path: path.name)
def test_the_comments_of_a_shipped_config_are_those_of_the_code(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == annotate_file(path), "run: make docs"


def test_every_key_has_a_description() -> None:
    assert [key for key, known in described_keys().items() if not known.description] == []


def test_a_comment_has_the_default_of_the_field_and_replaces_a_wrong_one() -> None:
    text = "# my run\ntrain:\n  # steps between log lines [default: 7]\n  log_every: 5  # often\n"
    shown = annotated(text, "schema.json")
    assert shown == (
        "# yaml-language-server: $schema=schema.json\n"
        "# my run\n"
        "\n"
        f"# {described_keys()['train'].description}\n"
        "train:\n"
        "  # steps between log lines [default: 10]\n"
        "  log_every: 5  # often\n"
    )
    assert RunConfig.model_fields["train"].annotation.model_fields["log_every"].default == 10  # type: ignore[union-attr]
    assert annotated(shown, "schema.json") == shown


def test_keys_of_one_line_are_named_in_their_comments() -> None:
    shown = annotated("batch: {sequences: 4, micro: 2}\n", "schema.json")
    described = described_keys()
    assert shown.splitlines()[2:] == [
        f"# batch: {described['batch'].description}",
        f"# sequences: {described['batch.sequences'].description} [required]",
        f"# micro: {described['batch.micro'].description} [required]",
        "batch: {sequences: 4, micro: 2}",
    ]


def test_an_alias_is_explained_where_its_anchor_stands() -> None:
    text = "train: &same\n  steps: 5\nbatch: *same\n"
    assert annotated(text, "schema.json").count("optimizer steps [required]") == 1


def test_a_key_that_nothing_describes_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"train\.every"):
        annotated("train:\n  every: 5\n", "schema.json")
