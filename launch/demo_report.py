"""Report the results of `make demo`: fill-mask predictions of transformers, losses, output paths.

python launch/demo_report.py DEMO_FOLDER
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

from bigbird_ds.data.format import TRAIN
from bigbird_ds.data.shards import Shards

SENTENCES = (
    "Return the [MASK] of the string.",
    "The default [MASK] is None.",
    "Raise ValueError if the argument is not a [MASK].",
    "This module defines the following functions and [MASK].",
)


def unigram_entropy(shards: Shards) -> float:
    """Unigram entropy of the training split in nats: the loss of predicting token frequencies."""
    vocab_size = shards.manifest.tokenizer.vocab_size
    counts = np.zeros(vocab_size, dtype=np.int64)
    for document, num_tokens in enumerate(shards.document_index().num_tokens):
        counts += np.bincount(shards.read(document, 0, int(num_tokens)), minlength=vocab_size)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def print_predictions(export: Path) -> None:
    import transformers
    from transformers import pipeline

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    fill_mask = pipeline("fill-mask", model=str(export), tokenizer=str(export), device="cpu")
    print("\nfill-mask with transformers:")
    for sentence in SENTENCES:
        guesses = ", ".join(
            f"{guess['token_str'].strip()!r} {guess['score']:.0%}"
            for guess in fill_mask(sentence, top_k=4)
        )
        print(f"  {sentence}\n      {guesses}")


def print_losses(folder: Path) -> None:
    text = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    train = [line for line in lines if "loss" in line]
    evaluation = [line for line in lines if "eval_loss" in line][-1]
    entropy = unigram_entropy(Shards(folder / "shards", TRAIN))
    print("\nmasked-word loss, nats per token:")
    print(f"  first step: {train[0]['mlm_loss']:.3f}")
    print(f"  last step ({train[-1]['step']}): {train[-1]['mlm_loss']:.3f}")
    print(f"  held-out documents: {evaluation['eval_mlm_loss']:.3f}")
    print(f"  unigram entropy of the corpus: {entropy:.3f} ({entropy / math.log(2):.2f} bits)")
    print(f"next-sentence accuracy, held out: {evaluation['eval_nsp_accuracy']:.1%}")


def main() -> int:
    folder = Path(sys.argv[1])
    print_predictions(folder / "export")
    print_losses(folder)
    print("\noutput:")
    for name, what in {
        "documents.jsonl": "the documents",
        "tokenizer": "the tokenizer",
        "shards": "the shards (plain WebDataset tars, an index, a manifest)",
        "run": "the run: checkpoints, metrics.jsonl, samples.jsonl, TensorBoard events",
        "export": "the model in Hub format",
        "curves.png": "curves of losses, rates and throughput",
    }.items():
        print(f"  {folder / name}: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
