"""Fine-tune an export to answer questions from documents that are longer than its window.

The documents are the documentation of the standard library's modules; the question is what one of
their classes or functions does, the answer the first line of its docstring. A document is read in
overlapping windows, each after the question, which therefore lies in the block that every token
attends to; the best span of all windows is the answer. Whole modules are held out for the test. The
baseline answers with the first line after the name's first mention.

    python examples/finetune_question_answering.py work/export

``--data FILE.json`` reads questions in SQuAD's format instead; one paragraph in four is for the
test.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
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

from data_prep.python_docs import module_text

MAX_ANSWER = 40  # tokens
WINDOWS_PER_DOCUMENT = 4  # longer documents are cut: the default questions are about their begin
CHARACTERS_PER_TOKEN = 3
COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "start_positions", "end_positions")


@dataclass(frozen=True)
class Question:
    question: str
    document: str
    answer: str
    start: int  # of the answer in the document, in characters


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    tokenizer = prepare(options)
    train, test = (_questions(options, is_test) for is_test in (False, True))
    require_texts(options, train, test)
    windows = Dataset.from_list(
        [w for q in train for w in _training_windows(tokenizer, q, options)]
    )
    print(f"{len(train)} questions to train on ({len(windows)} windows), {len(test)} to test")
    guesses = [question.document.partition("\n")[0] for question in test]
    print(f"always the first line of the document: F1 {_mean_f1(guesses, test):.3f}")
    results = train_with_each_attention(
        options,
        lambda: transformers.AutoModelForQuestionAnswering.from_pretrained(options.model),
        lambda trainer: _mean_f1(answers(trainer, tokenizer, test, options), test),
        windows,
    )
    report("F1", results)
    return 0


def answers(
    trainer: Any, tokenizer: Any, questions: list[Question], options: argparse.Namespace
) -> list[str]:
    """The text of the best span of all windows of each question's document."""
    encoded = [_windows(tokenizer, question, options) for question in questions]
    rows = [{name: part[name][n] for name in part if name in COLUMNS}
            for part in encoded for n in range(len(part["input_ids"]))]  # fmt: skip
    starts, ends = trainer.predict(Dataset.from_list(rows)).predictions[:2]
    found, row = [], 0
    for question, part in zip(questions, encoded, strict=True):
        best, text = -np.inf, ""
        for offsets, kinds in zip(part["offset_mapping"], _kinds(part), strict=True):
            score, first, last = _best_span(starts[row], ends[row], kinds)
            if score > best:
                best, text = score, question.document[offsets[first][0] : offsets[last][1]]
            row += 1
        found.append(text)
    return found


def _best_span(start: Any, end: Any, kinds: Any) -> tuple[float, int, int]:
    """Score, first and last token of the best span of a window; ``kinds`` is 1 in the document."""
    start, end = (np.where(kinds, values, -np.inf) for values in (start, end))
    sums = np.stack([start + np.roll(end, -n) for n in range(min(MAX_ANSWER, len(start)))])
    for n in range(1, len(sums)):
        sums[n, -n:] = -np.inf  # np.roll wraps around
    extra, first = np.unravel_index(np.argmax(sums), sums.shape)
    return float(sums[extra, first]), int(first), int(first + extra)


def _windows(tokenizer: Any, question: Question, options: argparse.Namespace) -> Any:
    return tokenizer(
        question.question,
        question.document,
        truncation="only_second",
        max_length=options.length,
        stride=options.length // 4,
        padding="max_length",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )


def _kinds(windows: Any) -> list[Any]:
    """For each window, which tokens belong to the document."""
    count = len(windows["input_ids"])
    return [np.array([part == 1 for part in windows.sequence_ids(n)]) for n in range(count)]


def _training_windows(
    tokenizer: Any, question: Question, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """All windows that hold the answer, and one that does not, whose span is [CLS]."""
    windows = _windows(tokenizer, question, options)
    stop = question.start + len(question.answer)
    with_answer, without = [], []
    for n, kinds in enumerate(_kinds(windows)):
        offsets = windows["offset_mapping"][n]
        inside = [t for t in np.flatnonzero(kinds)
                  if offsets[t][1] > question.start and offsets[t][0] < stop]  # fmt: skip
        row = {name: windows[name][n] for name in windows if name in COLUMNS}
        whole = inside and offsets[inside[0]][0] <= question.start <= stop <= offsets[inside[-1]][1]
        row["start_positions"] = int(inside[0]) if whole else 0
        row["end_positions"] = int(inside[-1]) if whole else 0
        (with_answer if whole else without).append(row)
    return with_answer + without[:1]


def _questions(options: argparse.Namespace, is_test: bool) -> list[Question]:
    number = options.texts // 4 if is_test else options.texts
    if options.data is not None:
        return _squad(options.data, is_test)[: number * options.questions]
    size = options.length * WINDOWS_PER_DOCUMENT * CHARACTERS_PER_TOKEN
    found: list[Question] = []
    for path in standard_library(is_test):
        if number == 0:
            break
        text = module_text(path)[:size]
        sections = re.finditer(r"\n\n([\w.]+)\n\n(?=([^\n]{10,100})\n)", text)
        known = [(match[1], match[2], match.end()) for match in sections]
        number -= bool(known)
        step = max(len(known) // options.questions, 1)
        for name, answer, start in known[::step][: options.questions]:
            found.append(Question(f"What does {name} do?", text, answer, start))
    return found


def _squad(path: Path, is_test: bool) -> list[Question]:
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    return [
        Question(item["question"], paragraph["context"], first["text"], first["answer_start"])
        for n, paragraph in enumerate(paragraphs)
        if (n % 4 == 0) == is_test
        for item in paragraph["qas"]
        for first in item["answers"][:1]
    ]


def _mean_f1(guesses: list[str], questions: list[Question]) -> float:
    """SQuAD's F1 of words, averaged."""
    return sum(_f1(g, q.answer) for g, q in zip(guesses, questions, strict=True)) / len(questions)


def _f1(guess: str, answer: str) -> float:
    one, two = (Counter(re.findall(r"\w+", text.lower())) for text in (guess, answer))
    return 2 * (one & two).total() / max(one.total() + two.total(), 1)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, length=512, steps=600, batch=8, lr=5e-4)
    parser.add_argument("--data", type=Path, help="questions to use instead, SQuAD's .json")
    parser.add_argument("--texts", type=int, default=120, help="maximum number of documents")
    parser.add_argument("--questions", type=int, default=8, help="per document")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
