"""What both demo reports read: held-out windows, and the model before and after training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.format import VALIDATION
from bigbird_ds.data.loader import EvaluationBatches
from bigbird_ds.data.shards import Shards
from bigbird_ds.objectives import build_objective
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.vocabulary import Vocabulary


def held_out_windows(config: RunConfig) -> list[dict[str, torch.Tensor]]:
    """The validation windows, one a batch, with the masks of the run's evaluation."""
    assert isinstance(config.data.validation, str)
    vocabulary = Vocabulary.from_folder(config.data.tokenizer)
    batches = EvaluationBatches(
        [Corpus(Shards(config.data.validation, VALIDATION))],
        build_objective(config.objective.name, vocabulary, config.objective.options),
        seed=config.train.seed,
        sequence_length=config.data.sequence_length,
        micro_batch=1,
    )
    return list(batches)


def before_and_after(model_class: Any, export: Path) -> dict[str, Any]:
    """The model of transformers with fresh weights (``untrained``) and with those of the export."""
    trained = model_class.from_pretrained(export).eval()
    torch.manual_seed(0)
    return {"untrained": model_class(trained.config).eval(), "trained": trained}


def metrics(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of training and of evaluations in a run's metrics."""
    text = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [x for x in lines if "loss" in x], [x for x in lines if "eval_loss" in x]
