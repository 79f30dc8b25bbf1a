"""The log line on whole-word masking: how much of the text has words."""

from __future__ import annotations

from collections.abc import Sequence

from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.shards import Shards
from bigbird_ds.log import logger
from bigbird_ds.objectives import Objective
from bigbird_ds.objectives.word_spans import TOKENS, WordCounts, WordSpans

_MAX_DOCUMENTS, _MAX_TOKENS = 256, 4096


def report_words(objective: Objective, corpora: Sequence[Corpus]) -> None:
    """Log the line of each corpus; nothing if words are not masked whole."""
    for corpus in corpora:
        if line := words_in_words(objective, corpus.shards):
            logger.info("masking%s: %s", f" in {corpus.name}" if len(corpora) > 1 else "", line)


def words_in_words(objective: Objective, shards: Shards) -> str | None:
    """Say which share of the words is text without spaces; None if words are not masked whole.

    Reads the beginnings of up to 256 documents, evenly spread over the shards.
    """
    words = objective.words
    if words is None:
        return None
    count = min(shards.num_documents, _MAX_DOCUMENTS)
    total = WordCounts()
    for number in range(count):
        total += _count_document(words, shards, number * shards.num_documents // count)
    unit = "by token" if words.unspaced == TOKENS else "in pieces of 16 tokens"
    share = 100 * total.unspaced_runs / max(1, total.runs)
    share_of_tokens = 100 * total.unspaced_tokens / max(1, total.tokens)
    return (
        f"whole words; {share:.1f} % of the words ({share_of_tokens:.1f} % of the tokens) are text "
        f"without spaces, masked {unit}"
    )


def _count_document(words: WordSpans, shards: Shards, document: int) -> WordCounts:
    num_tokens = min(shards.num_tokens_of(document), _MAX_TOKENS)
    return words.count(shards.read(document, 0, num_tokens))
