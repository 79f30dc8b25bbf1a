"""Fine-tune an export with transformers' Trainer: its own attention first, then ours.

The task: which part of Python's documentation is a text from, its language reference or the
docstrings of tkinter, email, asyncio and so on? The texts come with the Python interpreter; whole
modules are held out for the test. Both trainings start from the same weights and see the same
batches.

    python examples/finetune_classification.py demo/export
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from datasets import Dataset

from bigbird_ds.integrations.transformers import accelerate
from data_prep.python_docs import documents


@dataclass(frozen=True)
class Result:
    """What one training gave."""

    accuracy_before: float
    accuracy: float
    seconds_per_step: float


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    names, train, test = make_data_set(tokenizer, options)
    print(f"{len(train)} texts to train on, {len(test)} to test, of {options.length} tokens each")
    print(f"from {', '.join(names)}")

    results = {}
    for name in ("transformers", "accelerated"):
        transformers.set_seed(options.seed)  # the same new head, the same dropout
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            options.model, num_labels=len(names)
        )
        if name == "accelerated":
            model = accelerate(model)
        results[name] = fine_tune(model, train, test, options)

    print(f"{'attention':<14}{'accuracy':>10}{'trained':>10}{'s/step':>10}")
    for name, result in results.items():
        print(
            f"{name:<14}{result.accuracy_before:>10.3f}{result.accuracy:>10.3f}"
            f"{result.seconds_per_step:>10.3f}"
        )
    return 0


def make_data_set(tokenizer: Any, options: argparse.Namespace) -> tuple[list[str], Any, Any]:
    """Subjects, and data sets of (input_ids, labels) for training and test.

    A subject is the language reference or a package of the standard library; its texts are strung
    together and cut into pieces of ``options.length`` tokens, so that none needs padding.
    """
    texts: dict[str, dict[bool, list[str]]] = defaultdict(lambda: {True: [], False: []})
    for identity, text in documents():
        part, _, name = identity.partition("/")
        subject = "language reference" if part == "topic" else name.split(".")[0]
        texts[subject][_is_held_out(identity)].append(text)
    both = {name: parts for name, parts in texts.items() if parts[True] and parts[False]}
    names = sorted(both, key=lambda name: min(map(_size, both[name].values())))[-options.subjects :]

    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for label, name in enumerate(sorted(names)):
        for held_out, parts in both[name].items():
            pieces = _pieces(tokenizer, "\n".join(parts), options.length)
            limit = options.texts // 4 if held_out else options.texts
            rows[held_out] += [{"input_ids": ids, "labels": label} for ids in pieces[:limit]]
    return sorted(names), Dataset.from_list(rows[False]), Dataset.from_list(rows[True])


def fine_tune(model: Any, train: Any, test: Any, options: argparse.Namespace) -> Result:
    """Train ``model`` for some steps; accuracy on ``test`` before and after, and the time."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=folder,
                max_steps=options.steps,
                per_device_train_batch_size=options.batch,
                per_device_eval_batch_size=options.batch,
                learning_rate=options.lr,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=options.steps // 10,
                seed=options.seed,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=train,
            eval_dataset=test,
            compute_metrics=_accuracy,
        )
        before = trainer.evaluate()["eval_accuracy"]
        runtime = trainer.train().metrics["train_runtime"]
        return Result(before, trainer.evaluate()["eval_accuracy"], runtime / options.steps)


def _accuracy(prediction: Any) -> dict[str, float]:
    found = np.argmax(prediction.predictions, axis=-1)
    return {"accuracy": float((found == prediction.label_ids).mean())}


def _is_held_out(identity: str) -> bool:
    """One document in four, whatever the others are."""
    return hashlib.sha256(identity.encode()).digest()[0] % 4 == 0


def _size(texts: list[str]) -> int:
    return sum(map(len, texts))


def _pieces(tokenizer: Any, text: str, length: int) -> list[list[int]]:
    """``text`` as [CLS] ... [SEP] of exactly ``length`` tokens each; the rest is dropped."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    room = length - 2
    return [
        [tokenizer.cls_token_id, *ids[start : start + room], tokenizer.sep_token_id]
        for start in range(0, len(ids) - room + 1, room)
    ]


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="an export, or any BigBird in Hub format")
    parser.add_argument("--length", type=int, default=768, help="tokens of a text")
    parser.add_argument("--subjects", type=int, default=4, help="classes to tell apart")
    parser.add_argument("--texts", type=int, default=60, help="at most, a subject, to train on")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
