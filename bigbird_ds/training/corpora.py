"""The corpora of a run: opening them, and how far the run is in each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigbird_ds.data.corpora import Corpus, short_names
from bigbird_ds.data.shards import Shards
from bigbird_ds.training.config.corpora import CorpusConfig
from bigbird_ds.vocabulary import Vocabulary


def open_corpora(
    configs: Sequence[CorpusConfig], split: str, vocabulary: Vocabulary | None
) -> list[Corpus]:
    """Open a split of each folder.

    Args:
        vocabulary: that all of them must be written with; None: not checked.

    Raises:
        DataError: a folder is missing or damaged, lacks the split, or has another tokenizer.
    """
    names = short_names([config.path for config in configs])
    corpora = []
    for config, name in zip(configs, names, strict=True):
        shards = Shards(Path(config.path), split)
        if vocabulary is not None:
            shards.check_tokenizer(vocabulary)
        corpora.append(Corpus(shards, config.weight, name))
    return corpora


def corpus_metrics(data_state: dict[str, Any], corpora: Sequence[Corpus]) -> dict[str, float]:
    """``epochs_NAME`` and ``share_NAME`` of each corpus, if a run has several.

    The first is the number of times that its tokens were read, the second its share of the tokens
    since the weights last changed.
    """
    places = data_state.get("corpora", [])[: len(corpora)]
    total = sum(place["balance"] for place in places)
    values = {}
    for place, corpus in zip(places, corpora, strict=False):
        values[f"epochs_{corpus.name}"] = place["tokens"] / corpus.shards.num_tokens
        values[f"share_{corpus.name}"] = place["balance"] / max(total, 1)
    return values


def corpus_line(values: dict[str, float], corpora: Sequence[Corpus]) -> str:
    """What ``corpus_metrics`` returned, as a log line."""
    return "data | " + " | ".join(
        f"{corpus.name} {100 * values[f'share_{corpus.name}']:.2f} % of the tokens, "
        f"{values[f'epochs_{corpus.name}']:.3f} epochs"
        for corpus in corpora
    )


def mean_by_weight(
    found: Sequence[dict[str, float]], corpora: Sequence[Corpus]
) -> dict[str, float]:
    """Each metric's mean over the corpora by weight, and as ``METRIC_NAME`` that of each corpus.

    Args:
        found: the metrics of each corpus; one without targets of a kind lacks its metrics.
    """
    if len(corpora) == 1:
        return found[0]
    means: dict[str, float] = {}
    each: dict[str, float] = {}
    for metric in dict.fromkeys(name for own in found for name in own):
        having = [(own[metric], c) for own, c in zip(found, corpora, strict=True) if metric in own]
        weights = sum(corpus.weight for _, corpus in having)
        means[metric] = sum(value * corpus.weight for value, corpus in having) / weights
        each |= {f"{metric}_{corpus.name}": value for value, corpus in having}
    return means | each
