import numpy as np
import pytest
from support.shards import make_vocabulary

from bigbird_ds.errors import ConfigError
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.objectives import Objective, build_objective
from bigbird_ds.objectives.pretraining import MaskingOptions

VOCABULARY = make_vocabulary()
A, B = np.arange(100, 120), np.arange(200, 215)


def _objective(name: str, mask_fraction: float = 0.15, whole_words: bool = True) -> Objective:
    options = MaskingOptions(mask_fraction=mask_fraction, whole_words=whole_words)
    return build_objective(name, VOCABULARY, options)


def _example(name: str, parts: list[np.ndarray], length: int = 48) -> dict[str, np.ndarray]:
    return _objective(name).example(parts, 1, keyed_generator(0, "masks"), length)


def _restored(example: dict[str, np.ndarray]) -> list[int]:
    ids = example["input_ids"].copy()
    used = example["target_ids"] != -100
    ids[example["target_positions"][used]] = example["target_ids"][used]
    return ids.tolist()


def test_a_pair_is_laid_out_as_bert_does() -> None:
    example = _example("mlm_nsp", [A, B])
    cls, sep, pad = VOCABULARY.cls, VOCABULARY.sep, VOCABULARY.pad
    text = [cls, *A, sep, *B, sep]
    assert _restored(example) == text + [pad] * (48 - len(text))
    assert example["token_type_ids"].tolist() == [0] * 22 + [1] * 16 + [0] * 10
    assert example["attention_mask"].tolist() == [1] * 38 + [0] * 10
    assert example["next_sentence_label"] == 1
    assert {array.dtype for array in example.values()} == {np.dtype(np.int64)}


def test_plain_text_has_one_segment_and_no_pair_label() -> None:
    example = _example("mlm", [A])
    assert _restored(example)[:22] == [VOCABULARY.cls, *A, VOCABULARY.sep]
    assert not example["token_type_ids"].any()
    assert "next_sentence_label" not in example


def test_targets_fill_the_first_slots_and_unused_ones_say_so() -> None:
    example = _example("mlm_nsp", [A, B])
    used = example["target_ids"] != -100
    assert len(used) == 8 and used.sum() == round(0.15 * 35) == 5
    assert used.tolist() == [True] * 5 + [False] * 3
    assert not example["target_positions"][~used].any()
    assert example["attention_mask"][example["target_positions"][used]].all()


@pytest.mark.parametrize("length", [16, 128, 4096, 4097])
@pytest.mark.parametrize("name", ["mlm_nsp", "mlm"])
def test_full_parts_fit_the_sequence(name: str, length: int) -> None:
    objective = _objective(name)
    capacity = objective.part_capacity(length)
    parts = [np.full(capacity, 100)] * objective.parts_per_window
    example = objective.example(parts, 0, keyed_generator(0, "masks"), length)
    assert length - objective.parts_per_window < example["attention_mask"].sum() <= length


@pytest.mark.parametrize("name", ["mlm_nsp", "mlm"])
def test_an_empty_example_has_the_fields_of_any_other_and_no_targets(name: str) -> None:
    objective = _objective(name)
    empty = objective.empty_example(48)
    full = _example(name, [A, B][: objective.parts_per_window])
    assert {k: v.shape for k, v in empty.items()} == {k: v.shape for k, v in full.items()}
    assert (empty["target_ids"] == -100).all()
    assert empty["attention_mask"].sum() == 1 + objective.parts_per_window
    assert empty.get("next_sentence_label", -100) == -100


def test_the_fraction_sets_slots_and_targets() -> None:
    objective = _objective("mlm", mask_fraction=0.5, whole_words=False)
    example = objective.example([A], 0, keyed_generator(0, "masks"), 48)
    assert len(example["target_ids"]) == 24 and (example["target_ids"] != -100).sum() == 10


def test_an_unknown_objective_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="mlm_nsp"):
        _objective("mlm-nsp")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 15.0])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="mask_fraction"):
        _objective("mlm", mask_fraction=fraction)


def test_a_sequence_without_room_for_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="sequence_length"):
        _objective("mlm_nsp").part_capacity(4)
