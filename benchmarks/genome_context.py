"""Genomes: does a model use a homologous strain 10,000 bases away in the same window?

    python benchmarks/genome_context.py --json genome_context.json --draw genome_context.png

Needs apt-get and dpkg-deb for Debian's ragout-examples, 16 strains of four bacteria, unless
``--genomes`` is given. A token is six bases. A window has a range of one strain, 40 % of whose
tokens are masked, then another strain of the species: the homologue of each piece of the first
(`genome_windows.py`), a piece being a block of the pattern. So every masked token lies 10,368 bases
before what it is homologous to. In the control an unrelated range of the other strain takes the
place. The two strains are aligned for the model: positions count from the start of each half, and
the token type tells the halves apart. Training begins with shorter windows of the same kind.

All contenders train equally: the same seeds, windows, masks, steps and learning rates. ``uniform``
and ``none``, without random blocks, train with the homologue, ``control`` is ``uniform`` trained on
the control. Each is tested on held-out ranges (training windows have at most 1 % of their words of
24 bases), twice: with the homologue, and with the control in its place. Bits a base are the loss of
the masked tokens that have a homologue, divided by six: 2 for guessing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import torch
from debian_package import fetch_package
from genome_windows import Window, draw_window, read_strains
from pair_kinds import KINDS, kinds_of_pairs
from small_training import train
from torch.nn import functional as F

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.plotting import pyplot, save_figure

MASK, FIRST, K = 1, 2, 6  # tokens from FIRST on are the words of six bases
MASKED = 0.4
LABELS = {
    "uniform": "uniform",
    "control": "uniform,\ntrained on unrelated",
    "none": "no random blocks",
}
CONTENDERS = tuple(LABELS)
BOTH = ("homologous", "unrelated")

Pairs = list[tuple[Window, Window]]


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/genome_context"))
    parser.add_argument("--genomes", type=Path, help="folder with SPECIES/references/*.fasta.gz")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--blocks", type=int, default=27, help="of each strain")
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--random-blocks", type=int, default=12)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--short-steps", type=int, default=500, help="before them, shorter windows")
    parser.add_argument("--short-blocks", type=int, default=9, help="of each strain in these")
    parser.add_argument("--test-windows", type=int, default=24)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    command_line.add_reading_options(parser, "bits a base by contender")
    arguments = parser.parse_args()
    windows = ([], []) if arguments.read is not None else draw_windows(arguments)
    rows = command_line.read_or_measure(
        "genome_context",
        arguments,
        arguments.contenders,
        lambda contender: train_and_test(contender, *windows, arguments),
    )
    if arguments.draw is not None:
        draw(rows, arguments.draw)
    return 0


def draw_windows(arguments: argparse.Namespace) -> tuple[Pairs, Pairs]:
    """Windows to train on, one a step, and to test on."""
    folder = arguments.genomes
    if folder is None:
        folder = fetch_package("ragout-examples", arguments.work) / "usr/share/doc/ragout/examples"
    strains = read_strains(folder)

    def draw(seed: Any, count: int, blocks: int, test: bool) -> Pairs:
        generator, size = np.random.default_rng(seed), arguments.block * K
        return [draw_window(strains, generator, blocks, size, test) for _ in range(count)]

    seed = arguments.seed
    short = draw([seed, 0], arguments.short_steps, arguments.short_blocks, False)
    long = draw([seed, 1], arguments.steps, arguments.blocks, False)
    windows = short + long, draw([seed, 2], arguments.test_windows, arguments.blocks, True)
    print("windows drawn", flush=True)
    return windows


def train_and_test(
    contender: str, training: Pairs, testing: Pairs, arguments: argparse.Namespace
) -> dict[str, Any]:
    torch.manual_seed(arguments.seed)
    model = BigBirdForMaskedLM(config_of(contender, arguments)).train()
    start_with_matches(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=arguments.lr, betas=(0.9, 0.98), weight_decay=0.0
    )
    generator = np.random.default_rng([arguments.seed, 3])
    remaining = iter(training)

    def next_loss() -> torch.Tensor:
        window = next(remaining)[contender == "control"]
        losses, _, _ = masked_losses(model, window, generator)
        return losses.mean()

    row = {"contender": contender} | train(contender, optimizer, next_loss, len(training))
    return row | {name: test(model, testing, name, contender, arguments) for name in BOTH}


@torch.no_grad()
def start_with_matches(model: Any) -> None:
    """Let tokens of equal positions attend to each other from the first step: positions outweigh
    words, and the weights of queries are those of keys. It saves the steps until heads match."""
    model.bert.embeddings.position_embeddings.weight.mul_(3)
    for layer in model.bert.encoder.layer:
        layer.attention.self.key.weight.copy_(layer.attention.self.query.weight)


@torch.no_grad()
def test(
    model: Any, testing: Pairs, other: str, contender: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Bits a base and accuracy of masked tokens in pieces that have a homologue, of all, by species
    and by what the pattern says of the piece and its homologue."""
    generator = np.random.default_rng([arguments.seed, 4])
    num_blocks = 2 * arguments.blocks
    kinds = kinds_of_pairs(config_of(contender, arguments), num_blocks * arguments.block)
    pieces = np.arange(arguments.blocks)
    kind_of_piece = kinds[pieces, pieces + arguments.blocks]
    columns: dict[str, list[np.ndarray]] = {"bits": [], "hits": [], "copied": [], "kind": []}
    species = []
    for pair in testing:
        window = pair[BOTH.index(other)]
        losses, hits, places = masked_losses(model, window, generator)
        piece = places // arguments.block
        same = (tokens_of(pair[0].masked) == tokens_of(pair[0].other)).ravel()[places]
        scored = pair[0].is_homologous[piece] & (piece > 0) & (piece < arguments.blocks - 1)
        columns["bits"].append((losses.numpy() / (np.log(2) * K))[scored])
        columns["hits"].append(hits.numpy()[scored])
        columns["copied"].append(same[scored])
        columns["kind"].append(kind_of_piece[piece][scored])
        species += [window.species] * int(scored.sum())
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    names = np.array(species)

    def means(chosen: np.ndarray) -> dict[str, Any]:
        found = {"tokens": int(chosen.sum())}
        for name in ("bits", "hits", "copied") if chosen.any() else ():
            found[name] = float(table[name][chosen].mean())
        return found

    result = means(np.ones(len(names), bool)) | {
        "by_species": {name: means(names == name) for name in sorted(set(species))},
        "by_kind": {KINDS[k]: means(table["kind"] == k) for k in range(3)},
    }
    print(f"{contender}, {other}: {json.dumps(result)}", flush=True)
    return result


def masked_losses(
    model: Any, window: Window, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """The loss in nats of each masked token, whether it was found, and their places in the first
    strain. Its first block and the last block of the window are global."""
    first, second = tokens_of(window.masked).ravel(), tokens_of(window.other).ravel()
    places = np.flatnonzero(generator.random(len(first)) < MASKED)
    targets = torch.from_numpy(first[places])
    first[places] = MASK
    position = torch.arange(len(first)).repeat(2)
    hidden = model.bert(
        input_ids=torch.from_numpy(np.concatenate([first, second]))[None],
        token_type_ids=(torch.arange(2 * len(first)) >= len(first)).long()[None],
        position_ids=position[None],
    ).last_hidden_state
    logits = model.cls(hidden[0, places])
    losses = F.cross_entropy(logits, targets, reduction="none")
    return losses, logits.argmax(-1) == targets, places


def tokens_of(bases: np.ndarray) -> np.ndarray:
    """``(pieces, size)`` bases as ``(pieces, size / 6)`` tokens."""
    digits = bases.reshape(len(bases), -1, K).astype(np.int64)
    return FIRST + digits @ (4 ** np.arange(K)[::-1])


def config_of(contender: str, task: argparse.Namespace) -> BigBirdConfig:
    return BigBirdConfig(
        vocab_size=FIRST + 4**K,
        hidden_size=task.width,
        num_hidden_layers=task.layers,
        num_attention_heads=task.heads,
        intermediate_size=2 * task.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=2 * task.blocks * task.block,
        sep_token_id=None,
        attention_type="block_sparse",
        block_size=task.block,
        num_random_blocks=0 if contender == "none" else task.random_blocks,
        random_style="uniform",
        initializer_range=0.1,
    )


def draw(rows: list[dict[str, Any]], target: Path) -> None:
    """Bits a base with the homologue and without, a pair of bars for each contender."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6.8, 4.2), layout="constrained")
    for side, other in enumerate(BOTH):
        bits = [row[other]["bits"] for row in rows]
        bars = axes.bar(np.arange(len(rows)) + 0.4 * side, bits, 0.38, label=other)
        axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xticks(np.arange(len(rows)) + 0.2, [LABELS[row["contender"]] for row in rows])
    axes.axhline(2.0, color="gray", linestyle=":", label="guessing")
    axes.set(ylabel="bits a masked base", ylim=(0, 2.8))
    figure.legend(title="the other strain", loc="outside right upper")
    save_figure(figure, target)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
