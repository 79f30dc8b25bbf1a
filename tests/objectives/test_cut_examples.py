"""Examples cut to several lengths: the same targets, visible text that contains the shorter one."""

from __future__ import annotations

import numpy as np
from support.shards import PEGASUS_FIRST_ORDINARY, make_vocabulary, pegasus_vocabulary

from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.objectives.gap_sentences import GapOptions, GapSentences
from bigbird_ds.objectives.objective import centered
from bigbird_ds.objectives.pretraining import (
    MaskedLanguageModel,
    MaskedLanguageModelWithPairs,
    MaskingOptions,
)

LENGTHS = [32, 65, 128]


def test_masked_tokens_are_the_same_and_in_the_text_of_every_length() -> None:
    vocabulary = make_vocabulary()
    for kind in (MaskedLanguageModel, MaskedLanguageModelWithPairs):
        objective = kind(vocabulary, MaskingOptions())
        ids = np.random.default_rng(0).integers(10, 1000, objective.cut_capacity(LENGTHS[-1]))
        kept = ids.copy()
        found = objective.cut_examples(ids, keyed_generator(3, "test"), LENGTHS, np.empty((0, 3)))
        assert (ids == kept).all()
        assert len(found) == 3
        for length, example in zip(LENGTHS, found, strict=True):
            begin, end = centered(len(ids), length - 2)
            assert example["input_ids"].shape == (length,)
            assert example["input_ids"][[0, -1]].tolist() == [vocabulary.cls, vocabulary.sep]
            assert example["attention_mask"].all()
            assert (example["target_ids"] == found[0]["target_ids"]).all()
            places = example["target_positions"] - 1
            assert (ids[begin:end][places] == example["target_ids"]).all()
            # Only the masked tokens differ from the text, and no other token is hidden by them.
            shown = example["input_ids"][1:-1]
            longest = found[-1]["input_ids"][1:-1][begin:end]
            assert (shown == longest).all()
        assert 0 < len(found[0]["target_ids"]) < 15
        share = (found[-1]["input_ids"][1:-1] != ids).mean()
        assert 0.08 < share < 0.16  # masked all over, as in training


def test_a_text_without_a_target_in_its_middle_gives_no_example() -> None:
    objective = MaskedLanguageModel(make_vocabulary(), MaskingOptions())
    ids = np.full(126, 1)  # special tokens are never targets
    assert objective.cut_examples(ids, keyed_generator(0, "test"), LENGTHS, ids) == []


def test_gap_sentences_are_the_same_and_only_the_source_is_cut() -> None:
    vocabulary = pegasus_vocabulary()
    objective = GapSentences(vocabulary, GapOptions(target_length=24, keep_fraction=0.0))
    total = objective.cut_capacity(LENGTHS[-1])
    ids = np.random.default_rng(1).integers(PEGASUS_FIRST_ORDINARY, 400, total)
    begins = np.arange(0, total, 5)
    ends = np.append(begins[1:], total)
    sentences = np.stack([begins, ends, np.zeros_like(begins)], axis=1)
    found = objective.cut_examples(ids, keyed_generator(0, "test"), LENGTHS, sentences)
    (labels,) = {tuple(example["labels"]) for example in found}
    target = [each for each in labels if each != -100]
    assert target[-1] == vocabulary.eos and len(target) > 5
    for length, example in zip(LENGTHS, found, strict=True):
        begin, end = centered(total, length - 1)
        assert example["input_ids"].shape == (length,)
        source = example["input_ids"][example["attention_mask"] == 1].tolist()
        masks = source.count(vocabulary.sentence_mask)
        assert masks >= 1 and source[-1] == vocabulary.eos
        # The source and the target make up the visible text.
        assert len(source) - 1 - masks + len(target) - 1 == end - begin
        assert sorted([i for i in source[:-1] if i != vocabulary.sentence_mask] + target[:-1]) == (
            sorted(ids[begin:end].tolist())
        )
    # Sentences that the shortest length cuts are no targets: too few are left of long ones.
    long = sentences[::16].copy()
    long[:, 1] = np.append(long[1:, 0], total)
    assert objective.cut_examples(ids, keyed_generator(0, "test"), LENGTHS, long) == []
