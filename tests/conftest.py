"""Fixtures shared by several folders: a small corpus of real text, and transformers' log."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from support.corpus import Corpus, bigbird_run_settings, make_corpus

# Their fixtures train for minutes, once in each process that runs a test of the module. Idle
# processes steal tests from the end, so these come first.
_LONG_SETUP = {
    "test_sequence_parallel_pegasus.py",
    "test_gpu_all.py",
    "test_broken_steps.py",
    "test_steps.py",
    "test_adafactor.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONG_SETUP)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Documents, tokenizer and shards, created once per worker by the real commands."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def pegasus_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """As ``corpus``, with a tokenizer of the Pegasus family."""
    return make_corpus(tmp_path_factory.mktemp("pegasus_corpus"), family="pegasus")


@pytest.fixture
def run_settings(corpus: Corpus, tmp_path: Path) -> dict[str, Any]:
    """A run config that trains a tiny model on the corpus in seconds, dropout 0, fp32."""
    return bigbird_run_settings(corpus, tmp_path / "run")


@pytest.fixture
def run_config_file(run_settings: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(run_settings))  # JSON is YAML
    return path


@pytest.fixture
def transformers_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Warnings of transformers in the test; its loggers do not propagate them otherwise."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="transformers")
    return caplog
