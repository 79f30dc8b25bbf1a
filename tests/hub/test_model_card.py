"""A model card names the model that its run started from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support.corpus import TINY_MODEL

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.hub.base_model import base_model
from bigbird_ds.hub.checkpoints import TrainingState
from bigbird_ds.hub.model_card import RunRecords, write_model_card

CACHE = "/home/me/.cache/hub/models--google--bigbird-roberta-base/snapshots/5a145f7852cba9"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (CACHE, "google/bigbird-roberta-base"),
        ("work/roberta-base", "roberta-base"),
        ("..", "start"),
        (None, "start"),  # an export, or a folder that is gone
    ],
)
def test_the_name_of_the_base_model(source: str | None, name: str, tmp_path: Path) -> None:
    start = tmp_path / "start"
    if source:
        start.mkdir()
        (start / "import_report.json").write_text(json.dumps({"source": source}))
    expected = None if source == ".." else name
    assert base_model(str(start)) == expected


@pytest.mark.parametrize("start", [None, CACHE, "work/start"])
def test_the_card_has_it_after_a_warm_start_alone(start: str | None, tmp_path: Path) -> None:
    run_config = {
        "objective": {"name": "mlm"},
        "train": {"steps": 4, "seed": 0},
        "data": {"sequence_length": 256},
        "batch": {"sequences": 2},
        "optimizer": {"lr": 1e-3},
        "initial_weights": start,
    }
    records = RunRecords(TrainingState(4, 9, {}, run_config), {}, {})
    model = BigBirdForMaskedLM(BigBirdConfig.from_dict({**TINY_MODEL, "vocab_size": 70}))
    write_model_card(tmp_path / "README.md", model, records, "float32", None)
    _, header, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    base = {None: None, CACHE: "google/bigbird-roberta-base", "work/start": "start"}[start]
    assert yaml.safe_load(header).get("base_model") == base
    assert ("`base_model` is the name of a folder, `start`" in text) == (base == "start")
