"""Recall at a distance: does a model use what its pattern connects? No data is needed.

    python benchmarks/recall.py --json recall.json             # every style, one after the other
    python benchmarks/recall.py --styles relay --steps 2000 --draw recall.png
    python benchmarks/recall.py --length 4096 --block 64 --short-length 64 # in two stages
    python benchmarks/recall.py --read recall.json --draw recall.png       # only the picture

A block of a document holds pairs (the token is one of 16 values, its token type one of many keys,
no key twice in a document), as many queries (the mask token, its type the key of a pair that lies a
given number of blocks before or after), and filler. The model, BigBird with a masked-language-model
head, learns the value of each query. A document has far more pairs than its two global blocks have
tokens. The defaults are what two CPU cores learn in minutes; `initializer_range` is 0.1 instead of
0.02, which shortens the time until heads match keys.

Matching keys is learned on short documents: ``--short-length`` trains one model with full attention
on these first, with the same keys. Each style goes on from there, with the table of positions
repeated as in ``import --extend-positions``.

All styles train equally: the same seeds, documents, steps and learning rates. ``full`` is full
attention, ``none`` has no random blocks. Patterns are those of training in evaluation too. Accuracy
is that of new documents, by distance and by what the pattern says of the pair: ``direct`` if some
head of some layer reads its block, ``connected`` if only several layers together do, ``not
connected`` otherwise; ways through the global blocks do not count. Chance is 1 / 16.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import torch
from pair_kinds import KINDS, kinds_of_pairs
from small_training import train
from torch.nn import functional as F

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.hub.positions import POSITION_TABLES, repeated_rows
from bigbird_ds.plotting import pyplot, save_figure

VALUES, FILLER, MASK = 16, 17, 18  # tokens 1 .. 16 are the values
SHORT = "short documents"
STYLES = ("full", "none", "hf", "google", "uniform", "relay")


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3, help="in a block, and as many queries")
    parser.add_argument("--random-blocks", type=int, default=3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--documents", type=int, default=4, help="in a step")
    parser.add_argument("--short-length", type=int, help="train on documents of this length first")
    parser.add_argument("--short-block", type=int, default=4)
    parser.add_argument("--short-steps", type=int, default=2200)
    parser.add_argument("--short-documents", type=int, default=16, help="in a step")
    parser.add_argument("--test-documents", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    command_line.add_reading_options(parser, "accuracy by distance")
    arguments = parser.parse_args()
    arguments.keys = arguments.pairs * (arguments.length // arguments.block)
    contenders = [*([SHORT] if arguments.short_length else []), *arguments.styles]
    start: dict[str, torch.Tensor] = {}

    def measure(contender: str) -> dict[str, Any]:
        if contender != SHORT:
            return train_and_test(contender, arguments, start)[0]
        row, trained = train_and_test("full", short_task(arguments), {})
        start.update(trained)
        return row | {"style": SHORT}

    rows = command_line.read_or_measure("recall", arguments, contenders, measure)
    if arguments.draw is not None:
        draw(rows, arguments.draw)
    return 0


def short_task(task: argparse.Namespace) -> argparse.Namespace:
    """The task of the first stage, with the keys of the second."""
    first = {"length": task.short_length, "block": task.short_block, "keys": task.keys}
    first |= {"steps": task.short_steps, "documents": task.short_documents}
    return argparse.Namespace(**vars(task) | first)


def train_and_test(
    style: str, task: argparse.Namespace, start: dict[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Train a model, from the tensors ``start`` if there are any.

    Returns:
        Its accuracies, and its tensors.
    """
    torch.manual_seed(task.seed)
    model = BigBirdForMaskedLM(config_of(style, task)).train()
    if start:
        model.load_state_dict(
            {
                name: repeated_rows(tensor, task.length)
                if name.endswith(POSITION_TABLES)
                else tensor
                for name, tensor in start.items()
            }
        )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=task.lr, betas=(0.9, 0.98), weight_decay=0.0
    )
    generator = np.random.default_rng(task.seed)

    def next_loss() -> torch.Tensor:
        return loss_and_hits(model, generator, task.documents, task)[0]

    row = {"style": style} | train(style, optimizer, next_loss, task.steps)
    return row | test(model, style, task), model.state_dict()


@torch.no_grad()
def test(model: Any, style: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Accuracy on new documents by distance in tokens and by kind of pair, and all counts."""
    generator = np.random.default_rng([arguments.seed, 1])
    all_hits, all_pairs = [], []
    for _ in range(arguments.test_documents):
        _, hits, pairs = loss_and_hits(model, generator, 1, arguments)
        all_hits.append(hits)
        all_pairs.append(pairs)
    hits, pairs = np.concatenate(all_hits), np.concatenate(all_pairs)
    distance = np.abs(pairs[:, 0] - pairs[:, 1])
    kinds = kinds_of_pairs(config_of(style, arguments), arguments.length)
    kind = kinds[pairs[:, 0], pairs[:, 1]]
    by_distance = {}
    for d in distances(arguments.length // arguments.block):
        by_distance[d * arguments.block] = _share(hits[distance == d]) | {
            KINDS[k]: float((kind[distance == d] == k).mean()) for k in range(3)
        }
    by_kind = {KINDS[k]: _share(hits[kind == k]) for k in range(3)}
    print(
        f"{style}: {hits.mean():.3f} of all; "
        + ", ".join(
            f"{name} {share['accuracy']:.3f} of {share['queries']:,}"
            for name, share in by_kind.items()
            if share["queries"]
        ),
        flush=True,
    )
    return {"accuracy": float(hits.mean()), "by_distance": by_distance, "by_kind": by_kind}


def _share(hits: np.ndarray) -> dict[str, Any]:
    return {"accuracy": float(hits.mean()) if len(hits) else None, "queries": len(hits)}


def distances(num_blocks: int) -> list[int]:
    """The distances of queries in blocks: 1, 2, 4, ..., at most half of the sequence."""
    return [1 << k for k in range((num_blocks // 2).bit_length())]


def loss_and_hits(
    model: Any, generator: np.random.Generator, documents: int, task: argparse.Namespace
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """The loss of new documents, which queries were answered, and their (query, pair) blocks."""
    tokens, types, places, targets, pairs = make_documents(generator, documents, task)
    result = model.bert(input_ids=tokens, token_type_ids=types)
    logits = model.cls(result.last_hidden_state[places])
    hits = (logits.argmax(-1) == targets).numpy()
    return F.cross_entropy(logits, targets), hits, pairs


def make_documents(
    generator: np.random.Generator, documents: int, task: argparse.Namespace
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, np.ndarray]:
    """Tokens and token types ``(documents, N)``; the places, answers and blocks of the queries.

    The global blocks hold filler only.
    """
    num_blocks, block, num_pairs = task.length // task.block, task.block, task.pairs
    middle = np.arange(1, num_blocks - 1)
    tokens = np.full((documents, task.length), FILLER)
    types = np.zeros_like(tokens)
    places, targets, blocks = [], [], []
    for document in range(documents):
        keys = 1 + generator.permutation(task.keys)[: num_blocks * num_pairs]
        keys = keys.reshape(num_blocks, num_pairs)
        values = 1 + generator.integers(VALUES, size=(num_blocks, num_pairs))
        shuffled = generator.random((num_blocks, block)).argsort(axis=1)
        shuffled += np.arange(num_blocks)[:, None] * block
        pair, query = shuffled[:, :num_pairs], shuffled[:, num_pairs : 2 * num_pairs]
        tokens[document, pair[middle]], types[document, pair[middle]] = values[middle], keys[middle]

        asking = np.repeat(middle, num_pairs)
        distance = generator.choice(distances(num_blocks), size=len(asking))
        asked = asking + distance * generator.choice([-1, 1], size=len(asking))
        other = 2 * asking - asked
        asked = np.where((asked > 0) & (asked < num_blocks - 1), asked, other)
        asks = (asked > 0) & (asked < num_blocks - 1)
        place = query[middle].ravel()[asks]
        asking, asked = asking[asks], asked[asks]
        which = generator.integers(num_pairs, size=len(asked))
        tokens[document, place], types[document, place] = MASK, keys[asked, which]
        places.append(np.stack([np.full(len(place), document), place]))
        targets.append(values[asked, which])
        blocks.append(np.stack([asking, asked], axis=1))
    rows, columns = torch.from_numpy(np.concatenate(places, axis=1))
    return (
        torch.from_numpy(tokens),
        torch.from_numpy(types),
        (rows, columns),
        torch.from_numpy(np.concatenate(targets)),
        np.concatenate(blocks),
    )


def config_of(style: str, task: argparse.Namespace) -> BigBirdConfig:
    return BigBirdConfig(
        vocab_size=MASK + 1,
        hidden_size=task.width,
        num_hidden_layers=task.layers,
        num_attention_heads=task.heads,
        intermediate_size=2 * task.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=task.length,
        type_vocab_size=1 + task.keys,
        sep_token_id=None,
        attention_type="original_full" if style == "full" else "block_sparse",
        block_size=task.block,
        num_random_blocks=0 if style == "none" else task.random_blocks,
        random_style="hf" if style in ("full", "none") else style,
        initializer_range=0.1,
    )


def draw(rows: list[dict[str, Any]], target: Path) -> None:
    """Accuracy by distance, a curve for each style."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6.8, 4.2), layout="constrained")
    for row in rows:
        found = {int(d): share["accuracy"] for d, share in row["by_distance"].items()}
        axes.plot(list(found), list(found.values()), "o-", label=row["style"])
    axes.axhline(1 / VALUES, color="gray", linestyle=":", label="chance")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="distance in tokens", ylabel="queries answered", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    save_figure(figure, target)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
