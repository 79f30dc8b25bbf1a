"""The fine-tuning example runs, and both attentions give the same losses."""

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
def test_both_trainings_report_the_same_losses_and_accuracy(tmp_path: Path, corpus: Corpus) -> None:
    model = tmp_path / "export"
    BigBirdForPreTraining(BigBirdConfig(**TINY_MODEL, vocab_size=500)).save_pretrained(model)
    for path in corpus.tokenizer.iterdir():
        shutil.copyfile(path, model / path.name)
    options = ["--length", "128", "--texts", "12", "--steps", "4", "--batch", "4"]
    options += ["--packages", "python", "tokenizers"]
    script = REPOSITORY / "examples" / "finetune_classification.py"
    done = run(sys.executable, script, model, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "24 texts to train on, 6 to test, of 128 tokens each" in done.stdout
    assert "always the largest class: accuracy 0.500" in done.stdout
    rows = re.findall(
        r"^(transformers|accelerated) +(\d\.\d+) +(\d\.\d+) +(\d+\.\d+) +(.*)$",
        done.stdout,
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == ["transformers", "accelerated"]
    assert rows[0][1:3] == rows[1][1:3]
    assert len(rows[0][4].split()) == 4
    difference = re.search(r"largest difference of a loss: (\S+)$", done.stdout, re.MULTILINE)
    assert difference is not None and float(difference[1]) < 1e-4
