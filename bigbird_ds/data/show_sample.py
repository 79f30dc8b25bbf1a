"""Show a document of the shards and the training example that it is in, as text."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bigbird_ds.data.examples import ExampleDataset
from bigbird_ds.data.loader import geometry_of
from bigbird_ds.data.pairs import CONTINUATION, RANDOM
from bigbird_ds.data.sample_order import Sample
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.windows import EpochPlan, Window
from bigbird_ds.errors import ConfigError, UserError
from bigbird_ds.objectives import OBJECTIVES, Objective
from bigbird_ds.objectives.objective import IGNORED
from bigbird_ds.printable import escaped
from bigbird_ds.vocabulary import BIGBIRD, Vocabulary

_WIDTH = 96
_LABELS = {CONTINUATION: "B continues A", RANDOM: "B is from another document"}
DEFAULT_LENGTH, DEFAULT_SEED = 512, 0


def show_sample(
    folder: Path,
    document: int,
    objective_name: str | None = None,
    length: int = DEFAULT_LENGTH,
    seed: int = DEFAULT_SEED,
) -> str:
    """Describe a document of the train split, and the example of a run's first epoch it begins in.

    Args:
        folder: of shards.
        document: its index in the train split.
        objective_name: a key of ``OBJECTIVES``; None: ``mlm_nsp`` or ``gap_sentences``, whichever
            fits the tokenizer. Options have their defaults.
        length: ``data.sequence_length`` of the run.
        seed: ``train.seed`` of the run.

    Raises:
        ConfigError: no such document, or an objective or length that does not fit.
        DataError: the shards are missing or damaged.
    """
    shards = Shards(folder)
    if not 0 <= document < shards.num_documents:
        raise ConfigError(
            "--sample is out of range",
            seen=document,
            needed=f"0 to {shards.num_documents - 1}, an index of a document in the train split",
            change="--sample",
        )
    vocabulary = Vocabulary.from_folder(folder)
    shards.check_tokenizer(vocabulary)
    objective = _objective(objective_name, vocabulary)
    lines = [*_describe_document(shards, vocabulary, document), ""]
    lines += _describe_example(shards, objective, document, length, seed)
    return "\n".join(lines)


def _objective(name: str | None, vocabulary: Vocabulary) -> Objective:
    fitting = [each for each, kind in OBJECTIVES.items() if kind.family == vocabulary.family]
    if name is None:
        name = "mlm_nsp" if vocabulary.family == BIGBIRD else "gap_sentences"
    if name not in fitting:
        raise ConfigError(
            "--objective does not fit the tokenizer of the shards",
            seen=f"{name}, with a tokenizer of the {vocabulary.family} family",
            needed=f"one of {', '.join(fitting)}",
            change="--objective",
        )
    return OBJECTIVES[name](vocabulary, OBJECTIVES[name].options_class())


def _describe_document(shards: Shards, vocabulary: Vocabulary, document: int) -> Iterator[str]:
    index = shards.document_index()
    num_tokens = int(index.num_tokens[document])
    ids = shards.read(document, 0, num_tokens)
    starts = shards.sentence_starts(document, 0, num_tokens)
    meta = shards.meta(document)
    yield (
        f"document {document:,} of the train split: {num_tokens:,} tokens, {len(starts):,}"
        f" sentences, {meta.num_chars:,} characters"
    )
    yield f"  id: {escaped(meta.id)}"
    yield f"  source: {escaped(meta.source)}"
    yield "sentences:"
    for number, sentence in enumerate(np.split(ids, starts[1:])):
        yield _filled(f"{number}: {_text(vocabulary, sentence)}")


def _describe_example(
    shards: Shards, objective: Objective, document: int, length: int, seed: int
) -> Iterator[str]:
    try:
        geometry = geometry_of(objective, length)
    except ConfigError as error:
        raise ConfigError(
            error.problem, seen=error.seen, needed=error.needed, change="--length"
        ) from error
    plan = EpochPlan(shards.document_index(), geometry, seed, 0)
    position = plan.position_of(document)
    window = plan.window(position)
    dataset = ExampleDataset([shards], objective, seed, length)
    batch = dataset[[Sample(0, position, window)]]
    if isinstance(batch, UserError):
        raise batch
    example = {name: field[0].numpy() for name, field in batch.unpack().items()}
    yield (
        f"the document begins in example {position:,} of the {len(plan):,} of the first epoch"
        f" ({objective.name}, {length:,} tokens, seed {seed}):"
    )
    yield from _describe_parts(window)
    if "next_sentence_label" in example:
        label = int(example["next_sentence_label"])
        yield f"  next-sentence label: {label} ({_LABELS.get(label, 'no part B')})"
    yield from _describe_texts(objective.vocabulary, example)


def _describe_parts(window: Window) -> Iterator[str]:
    for name, spans in zip("AB", window.parts, strict=False):
        label = f"part {name}" if len(window.parts) > 1 else "text"
        texts = [f"document {d:,} [{start:,}, {stop:,})" for d, start, stop in spans.tolist()]
        yield _filled(f"{label}: {', '.join(texts) or 'nothing'}")


def _describe_texts(vocabulary: Vocabulary, example: dict[str, np.ndarray]) -> Iterator[str]:
    """The input with its masks marked, and the target if the model generates one."""
    ids = example["input_ids"][example["attention_mask"] == 1]
    targets = {}
    if "target_ids" in example:
        is_used = example["target_ids"] != IGNORED
        positions = example["target_positions"][is_used].tolist()
        targets = dict(zip(positions, example["target_ids"][is_used].tolist(), strict=True))
    name = "source" if "labels" in example else "input"
    counts = f"{len(ids):,} tokens" + (f", {len(targets):,} of them masked" if targets else "")
    yield f"{name}, {counts}:"
    yield _filled(_text(vocabulary, ids, targets))
    if "labels" in example:
        labels = example["labels"][example["labels"] != IGNORED]
        yield f"target, {len(labels):,} tokens:"
        none = "none: no document in this example has two sentences"
        yield _filled(_text(vocabulary, labels) if len(labels) else none)


def _text(vocabulary: Vocabulary, ids: np.ndarray, targets: dict[int, int] | None = None) -> str:
    """Decode ``ids``; ``targets`` maps the position of each masked token to its original id.

    They are shown as ``{mask: text}``, ``{kept: text}``, or ``{random pieces: text}``.
    """
    targets = targets or {}
    seen = ids.tolist()

    def kind(position: int) -> str:
        if position not in targets:
            return ""
        if seen[position] == vocabulary.mask:
            return "mask"
        return "kept" if seen[position] == targets[position] else "random"

    texts = []
    for name, group in itertools.groupby(range(len(seen)), kind):
        positions = list(group)
        there = vocabulary.text([seen[position] for position in positions])
        if name:
            wanted = vocabulary.text([targets[position] for position in positions])
            space = " " if wanted.startswith(" ") else ""
            shown = f"{name} {there.strip()}" if name == "random" else name
            there = f"{space}{{{shown}: {wanted.strip()}}}"
        texts.append(there)
    return re.sub(" +", " ", "".join(texts)).strip()


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
