"""Fine-tune an export with transformers' Trainer: with its own attention, then with ours.

The task: which package does a piece of documentation come from, Python's standard library, numpy,
torch or transformers? The texts are docstrings of installed packages; whole modules are held out
for the test. Both trainings start from the same weights and see the same batches, so their losses
must be equal.

    python examples/finetune_classification.py demo/export
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset

from bigbird_ds.integrations.transformers import use_block_sparse_attention
from data_prep.python_docs import module_text

STANDARD_LIBRARY = "python"
CHARACTERS_PER_TOKEN = 5  # more than a tokenizer trained on documentation needs


@dataclass(frozen=True)
class Result:
    """Results of one training run: ``losses`` are means over intervals of steps."""

    accuracy_before: float
    accuracy: float
    losses: list[float]
    seconds_per_step: float


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    train, test = make_data_set(tokenizer, options)
    print(f"{len(train)} texts to train on, {len(test)} to test, of {options.length} tokens each")
    counts = np.bincount(test["labels"], minlength=len(options.packages))
    shares = ", ".join(
        f"{name} {count}" for name, count in zip(options.packages, counts, strict=True)
    )
    print(f"test: {shares}; always the largest class: accuracy {counts.max() / len(test):.3f}")

    results = {}
    for name in ("transformers", "accelerated"):
        transformers.set_seed(options.seed)  # the same new head and the same dropout
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            options.model, num_labels=len(options.packages)
        )
        if name == "accelerated":
            model = use_block_sparse_attention(model)
        results[name] = fine_tune(model, train, test, options)
    report(results)
    return 0


def report(results: dict[str, Result]) -> None:
    """Print the results side by side."""
    print(f"{'attention':<14}{'accuracy':>10}{'trained':>10}{'s/step':>10}  losses")
    for name, result in results.items():
        losses = " ".join(f"{loss:.4f}" for loss in result.losses)
        print(
            f"{name:<14}{result.accuracy_before:>10.3f}{result.accuracy:>10.3f}"
            f"{result.seconds_per_step:>10.3f}  {losses}"
        )
    pairs = zip(*(result.losses for result in results.values()), strict=True)
    print(f"largest difference of a loss: {max(abs(one - other) for one, other in pairs):.1e}")


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
                lr_scheduler_type="linear",
                warmup_steps=options.steps // 10,
                seed=options.seed,
                save_strategy="no",
                logging_steps=max(options.steps // 8, 1),
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=torch.cuda.is_available(),
            ),
            train_dataset=train,
            eval_dataset=test,
            compute_metrics=_accuracy,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        before = trainer.evaluate()["eval_accuracy"]
        runtime = trainer.train().metrics["train_runtime"]
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        after = trainer.evaluate()["eval_accuracy"]
        return Result(before, after, losses, runtime / options.steps)


def _accuracy(prediction: Any) -> dict[str, float]:
    found = np.argmax(prediction.predictions, axis=-1)
    return {"accuracy": float((found == prediction.label_ids).mean())}


def _docstrings(package: str, is_test: bool, enough: int) -> str:
    """Docstrings of ``package``: at least ``enough`` characters, if it has so many.

    One module in four is for the test, whatever the others are. Modules come in a hashed order, so
    that early names are not preferred.
    """
    texts: list[str] = []
    size = 0
    modules = [path for path in _modules(package) if (_digest(path)[0] % 4 == 0) == is_test]
    for path in sorted(modules, key=_digest):
        if size >= enough:
            break
        texts.append(module_text(path))
        size += len(texts[-1])
    return "\n".join(texts)


def _modules(package: str) -> Iterator[Path]:
    if package == STANDARD_LIBRARY:
        yield from Path(sysconfig.get_path("stdlib")).glob("*.py")
        return
    specification = importlib.util.find_spec(package)
    if specification is None or specification.origin is None:
        sys.exit(f"--packages {package}: not installed")
    yield from Path(specification.origin).parent.rglob("*.py")


def _digest(path: Path) -> bytes:
    return hashlib.sha256("/".join(path.parts[-3:]).encode()).digest()


def _pieces(tokenizer: Any, text: str, length: int) -> list[list[int]]:
    """``text`` as [CLS] ... [SEP] of exactly ``length`` tokens each; the remainder is dropped."""
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
    parser.add_argument("model", type=Path, help="an export, or any BigBird model in Hub format")
    parser.add_argument("--length", type=int, default=768, help="tokens per text")
    parser.add_argument(
        "--texts", type=int, default=120, help="maximum number of training texts per class"
    )
    parser.add_argument(
        "--packages",
        nargs="+",
        default=[STANDARD_LIBRARY, "numpy", "torch", "transformers"],
        help="installed packages, whose names are the classes",
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
