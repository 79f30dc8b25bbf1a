"""The log line on whole-word masking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shards import make_vocabulary, write_shards

from bigbird_ds.data.shards import Shards
from bigbird_ds.objectives import build_objective
from bigbird_ds.objectives.pretraining import MaskingOptions
from bigbird_ds.training.reports.words_report import words_in_words
from data_prep.encoding import EncodedDocument


def _document(ids: list[int]) -> EncodedDocument:
    return EncodedDocument(np.array(ids, np.uint16), np.zeros(1, np.uint32), num_unknown=0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "1.0 % of the words (16.8 % of the tokens) are text without spaces, masked by token"),
        ({"unspaced_text": "chunks"}, "masked in pieces of 16 tokens"),
        ({"whole_words": False}, None),
    ],
)
def test_it_says_how_much_of_the_text_has_no_spaces(
    tmp_path: Path, options: dict[str, Any], line: str | None
) -> None:
    vocabulary = replace(make_vocabulary(), pieces=["▁a"] * 1000)
    words = [8] * 99  # even: each begins a word
    documents = [_document(words), _document([8] + [9] * 19)]
    shards = Shards(write_shards(tmp_path / "shards", documents, vocabulary))
    objective = build_objective("mlm", vocabulary, MaskingOptions(**options))
    found = words_in_words(objective, shards)
    assert line in found if found and line else found is line is None
