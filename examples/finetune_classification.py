"""Fine-tune an export with transformers' Trainer: with its own attention, then with ours.

The task: which package does a piece of documentation come from, Python's standard library, numpy,
torch or transformers? The texts are docstrings of installed packages; whole modules are held out
for the test. Both trainings start from the same weights and see the same batches, so their losses
must be equal.

    python examples/finetune_classification.py work/export
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
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
    split,
    train_with_each_attention,
)

from data_prep.python_docs import module_text, package_folder

STANDARD_LIBRARY = "python"
CHARACTERS_PER_TOKEN = 5  # more than a tokenizer trained on documentation needs


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    tokenizer = prepare(options)
    train, test = make_data_set(tokenizer, options)
    require_texts(options, train, test)
    print(f"{len(train)} texts to train on, {len(test)} to test, of {options.length} tokens each")
    counts = np.bincount(test["labels"], minlength=len(options.packages))
    shares = ", ".join(
        f"{name} {count}" for name, count in zip(options.packages, counts, strict=True)
    )
    print(f"test: {shares}; always the largest class: accuracy {counts.max() / len(test):.3f}")

    results = train_with_each_attention(
        options,
        lambda: transformers.AutoModelForSequenceClassification.from_pretrained(
            options.model, num_labels=len(options.packages)
        ),
        lambda trainer: trainer.evaluate()["eval_accuracy"],
        train,
        eval_dataset=test,
        compute_metrics=_accuracy,
    )
    report("accuracy", results)
    return 0


def make_data_set(tokenizer: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """Data sets of (input_ids, labels) for training and test; a label is a package.

    The docstrings of a package are concatenated, those of held-out modules separately, and cut into
    pieces of ``options.length`` tokens, so that none needs padding.
    """
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for label, name in enumerate(options.packages):
        for is_test, number in ((False, options.texts), (True, options.texts // 4)):
            text = _docstrings(name, is_test, number * options.length * CHARACTERS_PER_TOKEN)
            pieces = _pieces(tokenizer, text, options.length)[:number]
            rows[is_test] += [{"input_ids": ids, "labels": label} for ids in pieces]
    return Dataset.from_list(rows[False]), Dataset.from_list(rows[True])


def _accuracy(prediction: Any) -> dict[str, float]:
    found = np.argmax(prediction.predictions, axis=-1)
    return {"accuracy": float((found == prediction.label_ids).mean())}


def _docstrings(package: str, is_test: bool, enough: int) -> str:
    """Docstrings of ``package``: at least ``enough`` characters, if it has so many."""
    texts: list[str] = []
    size = 0
    for path in split(_modules(package), is_test):
        if size >= enough:
            break
        texts.append(module_text(path))
        size += len(texts[-1])
    return "\n".join(texts)


def _modules(package: str) -> list[Path]:
    if package == STANDARD_LIBRARY:
        return list(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return list(package_folder(package).rglob("*.py"))


def _pieces(tokenizer: Any, text: str, length: int) -> list[list[int]]:
    """``text`` as [CLS] ... [SEP] of exactly ``length`` tokens each; the remainder is dropped."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    room = length - 2
    return [
        [tokenizer.cls_token_id, *ids[start : start + room], tokenizer.sep_token_id]
        for start in range(0, len(ids) - room + 1, room)
    ]


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, length=768, steps=200, batch=4, lr=3e-4)
    parser.add_argument(
        "--texts", type=int, default=120, help="maximum number of training texts per class"
    )
    parser.add_argument(
        "--packages",
        nargs="+",
        default=[STANDARD_LIBRARY, "numpy", "torch", "transformers"],
        help="installed packages, whose names are the classes",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
