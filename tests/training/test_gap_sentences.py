"""Pretraining of BigBirdPegasus: independent of the layout, resumable, evaluated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.corpus import Corpus
from support.distributed import run_distributed
from support.pegasus_corpus import pegasus_run_settings
from support.runs import changed, errors_of, last_tensors, losses, train_all

from bigbird_ds.errors import DataError
from bigbird_ds.log import logger
from bigbird_ds.objectives import build_objective
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.losses import StepCounts, StepLoss, count_batch
from bigbird_ds.training.model_setup import build_model, resolve_model_config
from bigbird_ds.training.planning.plan import describe_plan
from bigbird_ds.vocabulary import Vocabulary

STAGE = "deepspeed.zero_optimization.stage"
PERSIST = "deepspeed.zero_optimization.stage3_param_persistence_threshold"


@pytest.fixture
def settings(pegasus_corpus: Corpus, tmp_path: Path) -> dict[str, Any]:
    return pegasus_run_settings(pegasus_corpus, tmp_path / "run")


@pytest.mark.launch
def test_losses_and_evaluation_are_the_same_for_any_layout(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    one = [{"batch.micro": 4}, {"batch.micro": 1}]
    two = [
        {STAGE: 1},
        {STAGE: 0},
        {STAGE: 2, "batch.micro": 1},
        {STAGE: 3, PERSIST: 0, "train.activation_checkpointing": True},
    ]
    lines = []
    for ranks, layouts in ((1, one), (2, two)):
        runs = [
            changed(settings, **layout, output=str(tmp_path / f"{ranks}-{number}"))
            for number, layout in enumerate(layouts)
        ]
        lines += run_distributed(train_all, ranks, runs)[0]
    expected = lines[0]
    assert len(set(losses(expected))) == 4
    for found in lines[1:]:
        assert losses(found) == pytest.approx(losses(expected), rel=1e-4)
        assert [line.get("tokens") for line in found] == [line.get("tokens") for line in expected]
        for name in ("eval_target_loss", "eval_mlm_loss", "eval_target_accuracy", "eval_loss"):
            assert found[-1][name] == pytest.approx(expected[-1][name], rel=1e-3)
    assert expected[-1]["eval_target_loss"] < math.log(500)


@pytest.mark.launch
def test_a_resumed_run_ends_with_the_weights_of_the_uninterrupted_one(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = changed(settings, **{"schedule.total_steps": 4, "data.validation": None})
    first = changed(settings, **{"train.steps": 2, "output": str(tmp_path / "first"), STAGE: 3})
    first = changed(first, **{PERSIST: 0})
    whole = changed(settings, output=str(tmp_path / "whole"))
    run_distributed(train_all, 2, [whole, first])
    half = tmp_path / "first" / "checkpoints" / "step-2"
    second = changed(settings, resume=str(half), output=str(tmp_path / "second"))
    run_distributed(train_all, 1, [second])
    expected, found = last_tensors(whole), last_tensors(second)
    assert set(found) == set(expected) and "final_logits_bias" in expected
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.launch
def test_bf16_trains_at_every_layout_near_fp32_and_resumes_exactly(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    bf16 = {"deepspeed.bf16.enabled": True}
    fp32_gradients = {"deepspeed.data_types.grad_accum_dtype": "fp32"}
    layouts: dict[str, dict[str, Any]] = {
        "fp32": {},
        "zero 1": {**bf16, **fp32_gradients},
        "zero 1, another micro-batch": {**bf16, **fp32_gradients, "batch.micro": 1},
        "zero 0": {**bf16, STAGE: 0},
        "zero 2": {**bf16, **fp32_gradients, STAGE: 2},
        "half": {**bf16, **fp32_gradients, "train.steps": 2, "schedule.total_steps": 4},
        "resumed": {
            **bf16,
            **fp32_gradients,
            "resume": str(tmp_path / "half" / "checkpoints" / "step-2"),
        },
        # The last one: DeepSpeed permanently replaces torch's linear layer.
        "zero 3": {**bf16, **fp32_gradients, STAGE: 3, PERSIST: 0},
    }
    runs = {
        name: changed(settings, **layout, output=str(tmp_path / name))
        for name, layout in layouts.items()
    }
    one_rank = changed(runs["zero 1"], output=str(tmp_path / "one rank"))
    found = dict(zip(runs, run_distributed(train_all, 2, list(runs.values()))[0], strict=True))
    found["one rank"] = run_distributed(train_all, 1, [one_rank])[0][0]
    half, resumed = found.pop("half"), found.pop("resumed")
    assert losses(half) + losses(resumed) == losses(found["zero 1"])
    expected = found["fp32"]
    for name, lines in found.items():
        # bf16 keeps 8 bits: losses agree to about 2 ** -8.
        assert losses(lines) == pytest.approx(losses(expected), rel=4e-3), name
        assert lines[-1]["eval_target_loss"] == pytest.approx(
            expected[-1]["eval_target_loss"], rel=4e-3
        ), name


@pytest.mark.launch
def test_inconsistent_settings_are_errors_before_the_first_step(
    settings: dict[str, Any], corpus: Corpus
) -> None:
    cases = {
        "longer than the decoder has positions": {"objective.target_length": 129},
        "wrong family for the objective": {
            "data.tokenizer": str(corpus.tokenizer),
            "data.train": str(corpus.shards),
        },
        "needs block-sparse attention": {
            "parallel.sequence": 2,
            "data.sequence_length": 112,
        },
        "of a different model family": {"model.model_type": "big_bird"},
    }
    runs = [changed(settings, **case) for case in cases.values()]
    found = run_distributed(errors_of, 2, runs)[0]
    for expected, message in zip(cases, found, strict=True):
        assert message is not None and expected in message


def test_documents_of_one_sentence_are_counted_and_a_corpus_of_them_is_refused(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_documents = check_run_config(settings, "test").objective.kind.check_documents
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level("WARNING"):
        check_documents("shards", 12, 0)
        assert not caplog.records
        check_documents("shards", 12, 3)
    assert "3 of 12 documents have a single sentence" in caplog.text
    with pytest.raises(DataError, match="no document has two or more sentences"):
        check_documents("shards", 12, 12)


def test_a_step_without_any_target_has_no_loss_and_no_gradient(
    settings: dict[str, Any], pegasus_corpus: Corpus
) -> None:
    config = check_run_config(settings, "test")
    vocabulary = Vocabulary.from_folder(pegasus_corpus.tokenizer)
    objective = build_objective("gap_sentences", vocabulary, config.objective.options)
    example = objective.empty_example(config.data.sequence_length)
    batch = {name: torch.from_numpy(values)[None] for name, values in example.items()}
    model = build_model(config, resolve_model_config(config, vocabulary), None).train()
    *targets, tokens = count_batch(batch, objective.losses)
    assert targets == [0.0, 0.0]
    counts = StepCounts.of(objective.losses, [*targets, tokens])
    loss = StepLoss(model, objective.losses)(batch, counts)["loss"]
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_the_plan_counts_both_stacks(settings: dict[str, Any]) -> None:
    def memory(**changes: Any) -> float:
        text = describe_plan(check_run_config(changed(settings, **changes), "test"))
        return float(text.split("activations")[1].split()[0])

    settings = changed(settings, **{"batch.micro": 4, "model.d_model": 256})
    least = memory()
    assert memory(**{"model.decoder_layers": 8}) > least
    assert memory(**{"model.encoder_layers": 8}) > least
    assert memory(**{"train.activation_checkpointing": True}) < least
