"""Example shapes and loss parts that every objective declares are those of its examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.shards import make_vocabulary, pegasus_vocabulary
from support.tiny_models import tiny_bigbird, tiny_pegasus

from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.objectives import OBJECTIVES, Objective, build_objective
from bigbird_ds.objectives.objective import IGNORED
from bigbird_ds.vocabulary import BIGBIRD

L = 64
CASES = [(name, {}) for name in OBJECTIVES]
CASES.append(("gap_sentences", {"input_mask_fraction": 0.2}))


def objective_of(name: str, changes: dict[str, Any]) -> tuple[Objective, Any]:
    options = OBJECTIVES[name].options_class(**changes)
    is_bigbird = OBJECTIVES[name].family == BIGBIRD
    vocabulary = make_vocabulary(400) if is_bigbird else pegasus_vocabulary()
    return build_objective(name, vocabulary, options), options


def examples_of(objective: Objective) -> list[dict[str, np.ndarray]]:
    """One with text, one without."""
    parts = [np.arange(200, 220)] * objective.parts_per_window
    sentences = [np.array([[0, 12, 0], [12, 20, 0]])] * objective.parts_per_window
    generator = keyed_generator(0, "masks")
    text = objective.example(parts, 1, generator, L, sentences)
    return [text, objective.empty_example(L)]


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_examples_have_the_declared_shapes(name: str, changes: dict[str, Any]) -> None:
    objective, options = objective_of(name, changes)
    declared = objective.example_shapes(options, L)
    for example in examples_of(objective):
        assert {field: array.shape for field, array in example.items()} == declared
        assert {array.dtype for array in example.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_the_models_sums_are_those_that_the_losses_name(name: str, changes: dict[str, Any]) -> None:
    objective, _ = objective_of(name, changes)
    make = tiny_bigbird if objective.family == BIGBIRD else tiny_pegasus
    sizes = {"vocab_size": 400, "max_position_embeddings": 256}
    model = objective.model_class(make(**sizes, attention_type="original_full"))
    examples = examples_of(objective)
    batch = {
        field: torch.from_numpy(np.stack([example[field] for example in examples]))
        for field in examples[0]
    }
    sums = model.loss_sums(**batch)
    parts = [part for part in objective.losses if part.labels in batch]
    assert set(sums) == {n for part in parts for n in (part.loss, part.count, part.correct)}
    for part in parts:
        assert sums[part.count] == (batch[part.labels] != IGNORED).sum() > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_an_objective_takes_out_of_training_gets_no_gradient(name: str) -> None:
    objective, _ = objective_of(name, {})
    make = tiny_bigbird if objective.family == BIGBIRD else tiny_pegasus
    model = objective.model_class(make(vocab_size=400, attention_type="original_full"))
    examples = examples_of(objective)
    batch = {field: torch.from_numpy(array)[None] for field, array in examples[0].items()}
    sums = model.loss_sums(**batch)
    sum(sums[part.loss] for part in objective.losses if part.loss in sums).backward()
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    objective.freeze_unused(model)
    assert unused == {n for n, p in model.named_parameters() if not p.requires_grad}
