"""A run over several corpora: one joins at a resume, on any layout, with its metrics and plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.corpus import Corpus
from support.distributed import run_distributed
from support.runs import changed, losses, metrics, train_all
from support.shards import random_documents, write_shards

from bigbird_ds.cli.main import main
from bigbird_ds.data.shards import Shards
from bigbird_ds.vocabulary import Vocabulary


@pytest.fixture
def mixed(corpus: Corpus, tmp_path: Path) -> list[dict[str, Any]]:
    """``data.train`` of two corpora: ``topics`` and ``noise``."""
    vocabulary = Vocabulary.from_folder(corpus.tokenizer)
    documents = random_documents([60, 400, 33, 8, 150] * 2, vocab_size=vocabulary.size)
    folder = write_shards(tmp_path / "noise", documents, vocabulary)
    write_shards(folder, documents[:2], vocabulary, split="validation")
    topics = tmp_path / "topics"
    topics.symlink_to(corpus.shards)
    return [{"path": str(topics), "weight": 3}, {"path": str(folder), "weight": 1}]


@pytest.mark.launch
def test_a_corpus_joins_at_a_resume_on_any_layout(
    run_settings: dict[str, Any],
    mixed: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_settings = changed(run_settings, **{"schedule.total_steps": 5, "objective.name": "mlm"})
    alone = changed(run_settings, **{"train.steps": 2})
    resumed = {
        "data.train": mixed,
        "data.validation": mixed,
        "resume": str(tmp_path / "run" / "checkpoints" / "step-2"),
        "train.steps": 5,
    }
    one, two = (
        changed(run_settings, **resumed, output=str(tmp_path / f"on{ranks}")) for ranks in (1, 2)
    )
    run_distributed(train_all, 1, [alone, one])
    run_distributed(train_all, 2, [changed(two, **{"batch.micro": 1})])

    lines = metrics(one)
    assert losses(metrics(two)) == pytest.approx(losses(lines), rel=1e-5)
    *steps, evaluation = lines
    assert [line["step"] for line in steps] == [3, 4, 5]
    assert steps[-1]["share_topics"] + steps[-1]["share_noise"] == pytest.approx(1)
    # 12 windows of 128 tokens: within one of the wanted share.
    assert abs(steps[-1]["share_noise"] - 0.25) < 1 / 12
    state = json.loads((tmp_path / "on1/checkpoints/step-5/state.json").read_text())
    places = state["data"]["corpora"]
    for place, corpus, name in zip(places, mixed, ("topics", "noise"), strict=True):
        num_tokens = Shards(corpus["path"]).num_tokens
        assert steps[-1][f"epochs_{name}"] == place["tokens"] / num_tokens > 0
    assert places[0]["tokens"] > places[0]["balance"] > 0
    for name in ("eval_loss", "eval_mlm_accuracy", "eval_bits_per_masked_token"):
        own = evaluation[f"{name}_topics"], evaluation[f"{name}_noise"]
        assert evaluation[name] == pytest.approx(0.75 * own[0] + 0.25 * own[1])
    assert evaluation["eval_loss_noise"] != evaluation["eval_loss_topics"]

    assert main(["inspect", str(tmp_path / "on1")]) == 0
    assert f"noise (weight 1): {places[1]['tokens']:,} tokens of it" in capsys.readouterr().out


def test_a_plan_counts_the_epochs_of_each_corpus(
    run_settings: dict[str, Any],
    mixed: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "run.yaml"
    unwritten = {"path": "later", "weight": 1}
    path.write_text(json.dumps(changed(run_settings, **{"data.train": [*mixed, unwritten]})))
    assert main(["plan", str(path), "train.steps=10"]) == 0
    output = capsys.readouterr().out
    total = 10 * 4 * 128
    for corpus, share in zip(mixed, (0.6, 0.2), strict=True):
        shards = Shards(corpus["path"])
        assert (
            f"{shards.folder.name}, {100 * share:g} % of the tokens, about "
            f"{total * share / shards.num_tokens:.2f} epochs of {shards.num_tokens:,} tokens"
        ) in output
    assert "later, 20 % of the tokens\n" in output and "there is no later yet" in output
    assert main(["plan", str(path), "--tokens", "99"]) == 2
    assert "--tokens has no effect on several corpora" in capsys.readouterr().err
