"""The fine-tuning example runs, and both attentions take the same path."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from support.corpus import TINY_MODEL, Corpus
from support.processes import REPOSITORY, run

from bigbird_ds import BigBirdConfig, BigBirdForPreTraining

pytest.importorskip("transformers", reason="the example trains with transformers")
pytest.importorskip("accelerate", reason="transformers' Trainer needs it")


@pytest.mark.launch
def test_both_trainings_are_reported_with_the_same_accuracy(tmp_path: Path, corpus: Corpus) -> None:
    model = tmp_path / "export"
    BigBirdForPreTraining(BigBirdConfig(**TINY_MODEL, vocab_size=500)).save_pretrained(model)
    for path in corpus.tokenizer.iterdir():
        shutil.copyfile(path, model / path.name)
    options = ["--length", "128", "--subjects", "3", "--texts", "8", "--steps", "4", "--batch", "4"]
    script = REPOSITORY / "examples" / "finetune_classification.py"
    done = run(sys.executable, script, model, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "24 texts to train on, 6 to test, of 128 tokens each" in done.stdout
    rows = re.findall(
        r"^(transformers|accelerated) +(0\.\d+) +(0\.\d+) +(\d+\.\d+)$", done.stdout, re.MULTILINE
    )
    assert [row[0] for row in rows] == ["transformers", "accelerated"]
    assert rows[0][1:3] == rows[1][1:3]
    assert all(float(row[3]) > 0 for row in rows)
