"""ListOps of Long Range Arena (Tay et al. 2021) from a generator of our own: random blocks or none.

    python benchmarks/listops.py --json listops.json
    python benchmarks/listops.py --styles uniform --length 2048 --shortest 500 --steps 5000

An expression such as ``[MAX 4 3 [MIN 2 3 ] 1 0 [MEDIAN 1 5 8 9 2 ] ]`` has a digit as its value,
which the model classifies from [CLS]. Operators are MAX, MIN, MEDIAN and SUM modulo 10, as there;
expressions are drawn until their length fits, up to ten arguments and ten levels. Published
accuracies, of another model size and budget, at up to 2,000 tokens: BigBird 36.05 %, transformer
36.37 %, window alone 15.82 %.

BigBird (a style) and the window with its global tokens alone (``none``) get the same steps, seeds
and expressions. Patterns are those of training in evaluation too. ``majority`` in the result is the
share of the most frequent value: what a model without any knowledge of the expression reaches;
``operator_majority``, what one reaches that reads the first operator alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from random import Random
from typing import Any

import command_line
import numpy as np
import torch
from small_training import train

from bigbird_ds import BigBirdConfig, BigBirdForSequenceClassification

PAD, CLS, CLOSE = 0, 1, 2
FIRST_OPERATOR, FIRST_DIGIT, VOCABULARY = 3, 7, 17
BLOCK, RANDOM_BLOCKS = 16, 3
STYLES = ("full", "none", "hf", "uniform", "relay")
NEST = 0.25  # chance of an argument to be an expression
MOST_ARGUMENTS, MOST_LEVELS = 10, 10

OPERATORS = (
    max,
    min,
    lambda values: int(statistics.median(values)),
    lambda values: sum(values) % 10,
)


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=["none", "uniform"])
    parser.add_argument("--length", type=int, default=256, help="most tokens")
    parser.add_argument("--shortest", type=int, default=64, help="fewest tokens")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--test-expressions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    command_line.add_threads_option(parser)
    arguments = parser.parse_args()
    facts, rows = command_line.begin(threads=arguments.threads), []
    for style in arguments.styles:
        rows.append(train_and_test(style, arguments))
        command_line.write_results("listops", arguments, facts, rows)
    return 0


def draw_expression(generator: Random, most: int, level: int = 1) -> tuple[list[int], int] | None:
    """The tokens of an expression, and its value; None once it has more than ``most`` tokens."""
    operator = generator.randrange(len(OPERATORS))
    tokens, values = [FIRST_OPERATOR + operator], []
    for _ in range(generator.randint(2, MOST_ARGUMENTS)):
        if level < MOST_LEVELS and generator.random() < NEST:
            inner = draw_expression(generator, most - len(tokens), level + 1)
            if inner is None:
                return None
            tokens += inner[0]
            values.append(inner[1])
        else:
            values.append(generator.randrange(10))
            tokens.append(FIRST_DIGIT + values[-1])
        if len(tokens) >= most:  # no room for the bracket
            return None
    return [*tokens, CLOSE], int(OPERATORS[operator](values))


def draw_batch(
    generator: Random, count: int, shortest: int, longest: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids and attention mask ``(count, longest)``, values ``(count,)``."""
    ids = np.full((count, longest), PAD)
    values = np.zeros(count, dtype=np.int64)
    for row in range(count):
        drawn = None
        while drawn is None or len(drawn[0]) + 1 < shortest:
            drawn = draw_expression(generator, longest - 1)
        tokens, values[row] = drawn
        ids[row, : len(tokens) + 1] = [CLS, *tokens]
    tensor = torch.from_numpy(ids)
    return tensor, (tensor != PAD).long(), torch.from_numpy(values)


def config_of(style: str, arguments: argparse.Namespace) -> BigBirdConfig:
    return BigBirdConfig(
        vocab_size=VOCABULARY,
        num_labels=10,
        hidden_size=arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
        intermediate_size=2 * arguments.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=arguments.length,
        pad_token_id=PAD,
        attention_type="original_full" if style == "full" else "block_sparse",
        block_size=BLOCK,
        num_random_blocks=0 if style == "none" else RANDOM_BLOCKS,
        random_style="hf" if style in ("full", "none") else style,
        initializer_range=0.1,
    )


def train_and_test(style: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a new model; its losses and its accuracy on new expressions."""
    torch.manual_seed(arguments.seed)
    model = BigBirdForSequenceClassification(config_of(style, arguments)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr)
    generator = Random(arguments.seed)
    size = (arguments.shortest, arguments.length)

    def next_loss() -> torch.Tensor:
        ids, mask, values = draw_batch(generator, arguments.batch, *size)
        loss: torch.Tensor = model(ids, attention_mask=mask, labels=values).loss
        return loss

    row = {"style": style} | train(style, optimizer, next_loss, arguments.steps)
    return row | test(model, style, arguments)


@torch.no_grad()
def test(model: Any, style: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Accuracy on new expressions, its standard error, and the shares of two simple answers."""
    generator = Random(f"test {arguments.seed}")
    hits, values, operators = [], [], []
    for _ in range(-(-arguments.test_expressions // arguments.batch)):
        ids, mask, expected = draw_batch(
            generator, arguments.batch, arguments.shortest, arguments.length
        )
        hits.append(model(ids, attention_mask=mask).logits.argmax(-1) == expected)
        values.append(expected)
        operators.append(ids[:, 1])
    hit = torch.cat(hits).double()
    accuracy = hit.mean().item()
    error = (accuracy * (1 - accuracy) / len(hit)) ** 0.5
    simple = simple_answers(torch.cat(operators), torch.cat(values))
    print(f"{style}: accuracy {accuracy:.3f} +- {error:.3f}, {simple}", flush=True)
    return {"accuracy": accuracy, "error": error, "expressions": len(hit)} | simple


def simple_answers(operators: torch.Tensor, values: torch.Tensor) -> dict[str, float]:
    """The share of the most frequent value, of all and given the first operator."""
    counts = torch.zeros(VOCABULARY, 10)
    counts.index_put_((operators, values), torch.ones(len(values)), accumulate=True)
    best, best_of_operator = counts.sum(0).max(), counts.max(1).values.sum()
    return {
        "majority": best.item() / len(values),
        "operator_majority": best_of_operator.item() / len(values),
    }


if __name__ == "__main__":
    sys.exit(main())
