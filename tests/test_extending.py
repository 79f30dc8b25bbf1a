"""The examples of docs/extending.md, each a file and a line in a copy of the package."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.corpus import Corpus
from support.processes import PRETRAIN, REPOSITORY, run
from support.runs import changed

from bigbird_ds.data.shards import Shards

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
# "dilated.py in bigbird_ds/attention" or "the line in bigbird_ds/attention", and the code
BLOCKS = re.findall(r"<!-- ([\w. ]*) in ([\w/]*) -->\n```python\n(.*?)```", PAGE, re.DOTALL)
FILES = {f"{folder}/{name}": code for name, folder, code in BLOCKS if name != "the line"}
LINES = [(f"{folder}/__init__.py", code) for name, folder, code in BLOCKS if name == "the line"]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as the page extends it."""
    root = tmp_path_factory.mktemp("extended")
    for package in ("bigbird_ds", "data_prep"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, root / package, ignore=ignored)
    for name, code in FILES.items():
        assert not (root / name).exists()
        (root / name).write_text(code)
    for name, line in LINES:
        with (root / name).open("a") as stream:
            stream.write(line)
    return root


def python(root: Path, *words: Any) -> str:
    # without the current folder, which holds the package as it is
    done = run("python", *words, PYTHONPATH=str(root), PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_short_and_has_one_line_that_imports_it() -> None:
    assert len(FILES) == len(LINES) >= 5
    for (name, code), (_, line) in zip(FILES.items(), LINES, strict=True):
        assert len(code.splitlines()) < 40 and len(line.splitlines()) == 1
        assert line.split()[1] == name.removesuffix(".py").replace("/", ".")


def test_the_reference_of_the_run_config_has_them(extended: Path) -> None:
    page = python(extended, "-m", "bigbird_ds.training.config.reference")
    assert "replacement: detect the tokens that were replaced" in page
    assert "adamw, radam: decay rates" in page and "polynomial: exponent of the decay" in page
    assert "mlm, mlm_nsp, replacement: fraction of the tokens that become targets" in page


@pytest.mark.launch
def test_objective_style_optimizer_and_schedule_train_a_model(
    extended: Path, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = changed(
        run_settings,
        **{
            "objective.name": "replacement",
            "model.random_style": "dilated",
            "optimizer.name": "radam",
            "schedule.name": "polynomial",
            "data.validation": run_settings["data"]["train"],
            "train.eval_windows": 4,
        },
    )
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(settings))
    plan = python(extended, "-m", "bigbird_ds.cli.main", "plan", path)
    assert "MFLOP per token" in plan
    python(extended, PRETRAIN, path)
    lines = [
        json.loads(line)
        for line in (Path(settings["output"]) / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [line["replaced_loss"] for line in lines if "replaced_loss" in line]
    assert losses[-1] < losses[0]
    peak = settings["optimizer"]["lr"]
    assert [line["lr"] for line in lines if "lr" in line] == pytest.approx(
        [peak / 2, peak, peak * 4 / 9, peak / 9]  # two steps of warm-up
    )
    assert 0 < lines[-1]["eval_replaced_accuracy"] <= 1


BACKEND_AND_STYLE = """
import torch
from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.errors import ConfigError

pattern = BlockPattern.build(96, 2, 8, 2, style="dilated")
assert pattern.key_blocks[0, 4, : (pattern.key_counts[0, 4] > 0).sum()].tolist() == [
    0, 4, 5, 6, 7, 9, 11]
mask = torch.ones(2, 96)
mask[0, 70:] = 0
q, k, v = (torch.randn(2, 2, 96, 4, dtype=torch.float64) for _ in range(3))
contexts = [block_sparse_attention(q, k, v, pattern, mask, name) for name in ("sdpa", "reference")]
torch.testing.assert_close(*contexts, rtol=1e-10, atol=1e-10)
try:
    long = torch.zeros(1, 1, 8192, 4)
    block_sparse_attention(long, long, long, BlockPattern.build(8192, 1), backend="sdpa")
except ConfigError as error:
    assert error.needed == "4,096 tokens at most", error
    print("refused")
"""


def test_the_backend_equals_the_reference_on_the_pattern_of_the_style(extended: Path) -> None:
    assert python(extended, "-c", BACKEND_AND_STYLE) == "refused\n"


def test_the_sentence_rule_cuts_documents_at_definitions(corpus: Corpus, tmp_path: Path) -> None:
    pattern = r"<!-- a module of yours: code_sentences.py -->\n```python\n(.*?)```"
    ((code),) = re.findall(pattern, PAGE, re.DOTALL)
    assert len(code.splitlines()) < 40
    (tmp_path / "code_sentences.py").write_text(code)
    source = "import os\n\n\ndef one():\n    return 1. And more\n\n\nclass Two:\n    pass\n"
    (tmp_path / "program.txt").write_text(source)
    done = run(
        *("bigbird-ds", "shard", tmp_path / "program.txt", "--tokenizer", corpus.tokenizer),
        *("--out", tmp_path / "shards", "--sentences", "code_sentences:definitions"),
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    shards = Shards(tmp_path / "shards", "train")
    assert shards.num_sentences == 3
    assert "code_sentences:definitions" in (tmp_path / "shards" / "manifest.json").read_text()
