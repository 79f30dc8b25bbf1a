"""Fine-tune an export to embed long documents: find the other half of a document.

A document is the documentation of a module of the standard library or of another package; its
halves are two texts. An embedding is the mean of the last hidden states; training raises the cosine
of the halves of one document above those of the other documents of the batch (InfoNCE, van den
Oord et al. 2018, as in contrastive sentence embeddings). The score is how often the nearest second
half among all held-out documents is the right one; the baseline uses counts of tokens, weighted by
how few documents have them.

    python examples/finetune_embeddings.py work/export

``--data FILE.jsonl`` reads other documents: a line has "text"; one line in four is for the test.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import torch
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

TEMPERATURE = 0.05


class Embedder(torch.nn.Module):
    """Mean-pooled embeddings of the halves of documents, and their contrastive loss."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """(documents, tokens) int64 -> (documents, hidden size), of length 1."""
        hidden = self.encoder(input_ids=ids).last_hidden_state
        return torch.nn.functional.normalize(hidden.mean(dim=1), dim=-1)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> dict[str, torch.Tensor]:
        """(documents, tokens) each; returns the loss and the embeddings of both halves."""
        one, two = self.embed(first), self.embed(second)
        scores = one @ two.T / TEMPERATURE
        target = torch.arange(len(one), device=one.device)
        loss = torch.nn.functional.cross_entropy(scores, target)
        return {"loss": loss, "first": one, "second": two}


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    tokenizer = prepare(options)
    train, test = (_halves(tokenizer, options, is_test) for is_test in (False, True))
    require_texts(options, train, test)
    print(f"{len(train)} documents to train on, {len(test)} to test; chance {1 / len(test):.3f}")
    print(f"weighted counts of tokens: {_share_found(*_weighted_counts(test)):.3f} found")

    def load() -> Embedder:
        model = transformers.AutoModel.from_pretrained(options.model, add_pooling_layer=False)
        return Embedder(model)

    def score(trainer: Any) -> float:
        one, two = trainer.predict(test).predictions[-2:]
        return _share_found(one, two)

    results = train_with_each_attention(
        options,
        load,
        score,
        train,
        arguments={"remove_unused_columns": False, "label_names": []},
        part=lambda embedder: embedder.encoder,
    )
    report("found", results)
    return 0


def _share_found(one: Any, two: Any) -> float:
    """How often row n of ``one`` is nearest to row n of ``two``."""
    return float((np.argmax(one @ two.T, axis=1) == np.arange(len(one))).mean())


def _weighted_counts(test: Any) -> tuple[Any, Any]:
    size = max(max(ids) for name in ("first", "second") for ids in test[name]) + 1
    counts = [
        np.array([np.bincount(ids, minlength=size) for ids in test[name]], dtype=float)
        for name in ("first", "second")
    ]
    weights = np.log(len(test) / np.maximum((counts[0] > 0).sum(axis=0), 1))
    weighted = [part * weights for part in counts]
    norms = [np.linalg.norm(part, axis=1, keepdims=True) for part in weighted]
    one, two = (part / np.maximum(norm, 1e-9) for part, norm in zip(weighted, norms, strict=True))
    return one, two


def _halves(tokenizer: Any, options: argparse.Namespace, is_test: bool) -> Any:
    """Both halves of the first tokens of each document, ``options.length`` tokens each."""
    number = options.texts // 4 if is_test else options.texts
    room = options.length - 2
    rows: list[dict[str, list[int]]] = []
    for text in _documents(options, is_test):
        if len(rows) == number:
            break
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= 2 * room:
            halves = (ids[:room], ids[room : 2 * room])
            first, second = (
                [tokenizer.cls_token_id, *half, tokenizer.sep_token_id] for half in halves
            )
            rows.append({"first": first, "second": second})
    return Dataset.from_list(rows)


def _documents(options: argparse.Namespace, is_test: bool) -> Any:
    if options.data is not None:
        with options.data.open(encoding="utf-8") as stream:
            texts = [json.loads(line)["text"] for line in stream]
        return [text for n, text in enumerate(texts) if (n % 4 == 0) == is_test]
    paths = list(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for package in options.packages:
        paths += package_folder(package).rglob("*.py")
    return (module_text(path) for path in split(paths, is_test))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, length=512, steps=150, batch=8, lr=3e-4)
    parser.add_argument("--data", type=Path, help="documents to use instead, .jsonl")
    parser.add_argument("--packages", nargs="*", default=["numpy", "torch"])
    parser.add_argument("--texts", type=int, default=240, help="maximum number of documents")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
