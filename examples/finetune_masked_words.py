"""Continue training an export on masked words of a domain with transformers' Trainer.

The domain is the documentation of an installed package, numpy by default; whole files are held out
for the test. The baseline predicts the most frequent token of the training text. (For more than a
few minutes of training use launch/pretrain.py: docs/continue_pretraining.md.)

    python examples/finetune_masked_words.py work/export

``--data FILE.jsonl`` reads other documents: a line has "text"; one line in four is for the test.
"""

from __future__ import annotations

import argparse
import json
import sys
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

IGNORED = -100


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    tokenizer = prepare(options)
    train, test = (_windows(tokenizer, options, is_test) for is_test in (False, True))
    require_texts(options, train, test)
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    transformers.set_seed(options.seed)
    masked = collator([{"input_ids": ids} for ids in test])  # once: both trainings see the same
    questions = Dataset.from_dict(
        {"input_ids": masked["input_ids"].tolist(), "labels": masked["labels"].tolist()}
    )
    frequent = np.bincount(np.concatenate(train)).argmax()
    targets = masked["labels"][masked["labels"] != IGNORED].numpy()
    print(f"{len(train)} windows to train on, {len(test)} to test, of {options.length} tokens")
    print(f"always the most frequent token: accuracy {(targets == frequent).mean():.3f}")
    results = train_with_each_attention(
        options,
        lambda: transformers.AutoModelForMaskedLM.from_pretrained(options.model),
        lambda trainer: _accuracy(trainer, questions),
        Dataset.from_dict({"input_ids": train}),
        data_collator=collator,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(dim=-1),
    )
    report("accuracy", results)
    return 0


def _accuracy(trainer: Any, questions: Any) -> float:
    collator, trainer.data_collator = trainer.data_collator, transformers.default_data_collator
    found = trainer.predict(questions)
    trainer.data_collator = collator
    counted = found.label_ids != IGNORED
    return float((found.predictions == found.label_ids)[counted].mean())


def _windows(tokenizer: Any, options: argparse.Namespace, is_test: bool) -> list[list[int]]:
    """Windows of exactly ``options.length`` tokens from the concatenated documents."""
    number = options.texts // 4 if is_test else options.texts
    room = options.length - 2
    windows: list[list[int]] = []
    rest: list[int] = []
    for text in _documents(options, is_test):
        rest += tokenizer(text, add_special_tokens=False)["input_ids"]
        while len(rest) >= room and len(windows) < number:
            windows.append([tokenizer.cls_token_id, *rest[:room], tokenizer.sep_token_id])
            rest = rest[room:]
        if len(windows) == number:
            break
    return windows


def _documents(options: argparse.Namespace, is_test: bool) -> list[str] | Any:
    if options.data is not None:
        with options.data.open(encoding="utf-8") as stream:
            texts = [json.loads(line)["text"] for line in stream]
        return [text for n, text in enumerate(texts) if (n % 4 == 0) == is_test]
    paths = package_folder(options.package).rglob("*.py")
    return (module_text(path) for path in split(paths, is_test))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, length=768, steps=300, batch=4, lr=1e-3)
    parser.add_argument("--data", type=Path, help="documents to use instead, .jsonl")
    parser.add_argument("--package", default="numpy", help="an installed package")
    parser.add_argument("--texts", type=int, default=400, help="maximum number of windows")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
