"""Guarantees of SECURITY.md that no other test covers: files cannot run code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny_models import tiny_bigbird

from bigbird_ds import BigBirdModel
from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import load_run_config


@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir", "python/name:os.mkdir"])
def test_a_run_config_cannot_call_python(tag: str, tmp_path: Path) -> None:
    target, config = tmp_path / "made", tmp_path / "run.yaml"
    config.write_text(f"model: !!{tag} [{target}]\n")
    with pytest.raises(ConfigError):
        load_run_config(config)
    assert not target.exists()


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    BigBirdModel(tiny_bigbird()).save_pretrained(tmp_path)
    target = tmp_path / "made"
    (tmp_path / "modeling.py").write_text(f"import os\nos.mkdir({str(target)!r})\n")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {"auto_map": {"AutoModel": "modeling.Model"}}
    path.write_text(json.dumps(config))
    BigBirdModel.from_pretrained(tmp_path)
    assert not target.exists()
