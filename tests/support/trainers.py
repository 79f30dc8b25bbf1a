"""transformers' Trainer on tiny batches, on the CPU, without output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from support.every_class import tiny_batch


def samples(name: str, number: int = 6, **batch_options: Any) -> list[dict[str, Any]]:
    """Single inputs of the class with labels, every second one with padding."""
    batches = [tiny_batch(name, seed=seed, **batch_options) for seed in range(number // 2)]
    return [{key: value[row] for key, value in b.items()} for b in batches for row in range(2)]


def make_trainer(
    model: Any, data: list[dict[str, Any]], output: Path, **settings: Any
) -> transformers.Trainer:
    """A Trainer of three steps of two samples, in the order of ``data``."""
    arguments = {
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        **settings,
    }
    return transformers.Trainer(
        model,
        transformers.TrainingArguments(str(output), **arguments),
        train_dataset=data,
        eval_dataset=data[:2],
    )


def train(*arguments: Any, **settings: Any) -> list[float]:
    """The losses of a :func:`make_trainer` run."""
    trainer = make_trainer(*arguments, **settings)
    trainer.train()
    return losses(trainer)


def losses(trainer: transformers.Trainer) -> list[float]:
    """The loss of each step that a Trainer logged."""
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]
