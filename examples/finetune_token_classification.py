"""Fine-tune an export to classify the words of long texts: colour the syntax of Python code.

The words are those of the standard library's source files, the classes what Python's own tokenizer
says: keyword, name, number, string, comment, operator. White space is lost, so whether a word
belongs to a comment or a string depends on words far away. Whole files are held out for the test.
The baseline takes for each word its most frequent class in the training texts.

    python examples/finetune_token_classification.py work/export

``--data FILE.jsonl`` reads other texts: a line has "words" and "labels", two lists of strings; one
line in four is for the test.
"""

from __future__ import annotations

import argparse
import itertools
import json
import keyword
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from datasets import Dataset
from fine_tuning import (
    option_parser,
    prepare,
    report,
    require_texts,
    run,
    standard_library,
    train_with_each_attention,
)

IGNORED = -100  # the label of pieces that do not begin a word
CLASSES = {
    tokenize.NAME: "name",
    tokenize.NUMBER: "number",
    tokenize.STRING: "string",
    tokenize.COMMENT: "comment",
    tokenize.OP: "operator",
}
Text = tuple[list[str], list[str]]  # words and their labels


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    tokenizer = prepare(options)
    texts = [_texts(options, is_test) for is_test in (False, True)]
    labels = sorted({label for part in texts for _, text in part for label in text})
    train, test = (_windows(tokenizer, part, labels, options.length) for part in texts)
    require_texts(options, train, test)
    print(
        f"{len(train)} windows to train on, {len(test)} to test, of {options.length} tokens; "
        f"classes: {', '.join(labels)}"
    )
    print(f"the most frequent class of each word: accuracy {_baseline(*texts):.3f}")
    results = train_with_each_attention(
        options,
        lambda: transformers.AutoModelForTokenClassification.from_pretrained(
            options.model, num_labels=len(labels)
        ),
        lambda trainer: trainer.evaluate()["eval_accuracy"],
        train,
        eval_dataset=test,
        compute_metrics=_accuracy,
    )
    report("accuracy", results)
    return 0


def coloured_words(source: Path) -> Iterator[tuple[str, str]]:
    """Yield (word, class) of a Python file; a string or comment of n words yields n pairs."""
    with source.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            label = CLASSES.get(token.type)
            if label is not None:
                label = "keyword" if keyword.iskeyword(token.string) else label
                yield from ((word, label) for word in token.string.split())


def _texts(options: argparse.Namespace, is_test: bool) -> list[Text]:
    number = options.texts // 4 if is_test else options.texts
    if options.data is None:
        paths = itertools.islice(standard_library(is_test), number)
        pairs = [list(coloured_words(path)) for path in paths]
        return [([word for word, _ in text], [label for _, label in text]) for text in pairs]
    with options.data.open(encoding="utf-8") as stream:
        records = [json.loads(line) for line in stream]
    chosen = [record for n, record in enumerate(records) if (n % 4 == 0) == is_test]
    return [(record["words"], record["labels"]) for record in chosen[:number]]


def _windows(tokenizer: Any, texts: list[Text], labels: list[str], length: int) -> Any:
    """Windows of ``length`` tokens; a word's label stands at its first piece. Remainders go."""
    numbers = {label: number for number, label in enumerate(labels)}
    rows = []
    room = length - 2
    for words, names in texts:
        encoded = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
        owners = encoded.word_ids()
        marks = [
            numbers[names[owner]] if owner is not None and owner != before else IGNORED
            for owner, before in zip(owners, [None, *owners], strict=False)
        ]
        ids = encoded["input_ids"]
        for start in range(0, len(ids) - room + 1, room):
            part = slice(start, start + room)
            rows.append(
                {
                    "input_ids": [tokenizer.cls_token_id, *ids[part], tokenizer.sep_token_id],
                    "labels": [IGNORED, *marks[part], IGNORED],
                }
            )
    return Dataset.from_list(rows)


def _accuracy(prediction: Any) -> dict[str, float]:
    counted = prediction.label_ids != IGNORED
    found = np.argmax(prediction.predictions, axis=-1)
    return {"accuracy": float((found == prediction.label_ids)[counted].mean())}


def _baseline(train: list[Text], test: list[Text]) -> float:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for words, labels in train:
        for word, label in zip(words, labels, strict=True):
            counts[word][label] += 1
    usual = sum(counts.values(), Counter()).most_common(1)[0][0]
    right = [
        (counts[word].most_common(1)[0][0] if word in counts else usual) == label
        for words, labels in test
        for word, label in zip(words, labels, strict=True)
    ]
    return sum(right) / len(right)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, length=768, steps=300, batch=4, lr=5e-4)
    parser.add_argument("--data", type=Path, help="texts to use instead, .jsonl")
    parser.add_argument("--texts", type=int, default=60, help="maximum number of training texts")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
