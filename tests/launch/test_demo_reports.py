"""The reports of the demos, on folders as a run and an export leave them; nothing is trained."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.corpus import TINY_MODEL, Corpus, tiny_run_settings

from bigbird_ds import (
    BigBirdConfig,
    BigBirdForPreTraining,
    BigBirdPegasusConfig,
    BigBirdPegasusForConditionalGeneration,
)
from launch import demo_pegasus_report, demo_report

pytest.importorskip("transformers", reason="the reports predict with transformers")
pytest.importorskip("rouge_score", reason="generated sentences are scored with it")


def demo_folder(folder: Path, corpus: Corpus, model: Any, objective: dict[str, Any]) -> Path:
    """A demo's folder: shards, an export, and a run's config and metrics."""
    (folder / "run").mkdir(parents=True)
    (folder / "shards").symlink_to(corpus.shards)
    settings = tiny_run_settings(model.config.to_dict(), corpus, folder / "run")
    settings["objective"] = objective
    settings["data"]["validation"] = str(corpus.shards)
    (folder / "run" / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    train = {"step": 1, "loss": 5.0, "mlm_loss": 5.0, "target_loss": 5.0}
    evaluation = {
        f"eval_{name}": 0.5
        for name in ("loss", "mlm_loss", "nsp_accuracy", "target_loss", "target_accuracy")
    }
    lines = [train, {"step": 1, **evaluation}]
    (folder / "run" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model.save_pretrained(folder / "export")
    for path in corpus.tokenizer.iterdir():
        shutil.copyfile(path, folder / "export" / path.name)
    return folder


@pytest.fixture
def transformers_log_restored() -> Any:
    import transformers

    verbosity = transformers.utils.logging.get_verbosity()
    yield
    transformers.utils.logging.set_verbosity(verbosity)
    transformers.utils.logging.enable_progress_bar()


def test_masked_words_and_accuracy_are_shown_before_and_after(
    tmp_path: Path,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    transformers_log_restored: None,
) -> None:
    model = BigBirdForPreTraining(BigBirdConfig(**TINY_MODEL, vocab_size=500))
    folder = demo_folder(tmp_path / "demo", corpus, model, {"name": "mlm_nsp"})
    monkeypatch.setattr(sys, "argv", ["demo_report", str(folder)])
    assert demo_report.main() == 0
    text = capsys.readouterr().out
    words = re.findall(r"^  .*____.*\n      '[^/]+' / '.*' / '.*'$", text, re.MULTILINE)
    assert len(words) >= 5, text
    shares = re.findall(r"^  (the most frequent token|untrained|trained) +(\S+)%$", text, re.M)
    assert [name for name, _ in shares] == ["the most frequent token", "untrained", "trained"]
    assert 1 < float(shares[0][1]) < 30


def test_gap_sentences_are_scored_before_and_after_and_against_baselines(
    tmp_path: Path,
    pegasus_corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    transformers_log_restored: None,
) -> None:
    sizes = {"d_model": 32, "block_size": 16, "num_random_blocks": 1, "dropout": 0.0}
    for stack in ("encoder", "decoder"):
        sizes |= {f"{stack}_layers": 1, f"{stack}_attention_heads": 2, f"{stack}_ffn_dim": 64}
    model = BigBirdPegasusForConditionalGeneration(
        BigBirdPegasusConfig(**sizes, vocab_size=500, max_position_embeddings=256)
    )
    objective = {"name": "gap_sentences", "target_length": 32}
    folder = demo_folder(tmp_path / "demo", pegasus_corpus, model, objective)
    monkeypatch.setattr(sys, "argv", ["demo_pegasus_report", str(folder)])
    monkeypatch.setattr(demo_pegasus_report, "NUM_WRITTEN", 4)
    assert demo_pegasus_report.main() == 0
    text = capsys.readouterr().out
    rows = re.findall(r"^  (.+?) +predicted right +(\S+)%, loss (\S+) nats$", text, re.MULTILINE)
    assert [name for name, _, _ in rows] == ["without context, at best", "untrained", "trained"]
    assert 1 < float(rows[0][1]) < 30 and 1 < float(rows[0][2]) < math.log(500)
    names = re.findall(r"^  (.+?) +ROUGE-1 \d\.\d{3}, ROUGE-L \d\.\d{3}, \d the", text, re.M)
    assert names == [
        "sentences removed elsewhere",
        "the text next to the gap",
        "untrained",
        "trained",
    ]
    shown = r"^  .*____.*\n    removed:    .+\n    untrained:  .*\n    trained:    .*$"
    assert len(re.findall(shown, text, re.MULTILINE)) == demo_pegasus_report.NUM_SHOWN, text


def test_a_guess_without_context_has_the_entropy_of_the_target_tokens() -> None:
    windows = [{"labels": torch.tensor([[5, 5, 6, -100]])}, {"labels": torch.tensor([[5, -100]])}]
    loss, accuracy = demo_pegasus_report.without_context(windows)
    assert accuracy == 0.75
    assert loss == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
