"""The log lines before the first step."""

from __future__ import annotations

import pytest

from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.training.start_report import attention_in_words


@pytest.mark.parametrize(
    ("attention_type", "length", "words"),
    [
        ("block_sparse", 704, "full attention (block_sparse above 704)"),
        ("block_sparse", 768, "block_sparse attention (google)"),
        ("original_full", 4096, "full attention"),
    ],
)
def test_the_attention_is_called_full_where_it_is_full(
    attention_type: str, length: int, words: str
) -> None:
    config = BigBirdConfig(attention_type=attention_type, random_style="google")
    assert attention_in_words(config, length) == words
