"""Speed of choosing gap sentences, in megabytes of text per second and core, for each strategy.

    python benchmarks/gap_sentences.py DOCUMENTS.jsonl TOKENIZER [--json FILE]

Times only the choice, as the data loader makes it for each window: words from ids, scores,
selection. `packed` has the documents as they are, several per window; `long` has all text as a
single document. Times are process times, so that other processes affect them less.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import command_line
import numpy as np

from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.objectives.gap_sentences import GapOptions, GapSentences
from bigbird_ds.objectives.principal_sentences import STRATEGIES
from data_prep.encoding import DocumentEncoder, sentences_of

SHAPES = [(3072, 256), (65536, 4096)]  # lengths of input and target
NUM_WINDOWS = 48

Window = tuple[np.ndarray, np.ndarray]


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("documents", type=Path, help='JSON lines with the field "text"')
    parser.add_argument("tokenizer", type=Path, help="tokenizer folder of the Pegasus family")
    parser.add_argument("--seconds", type=float, default=1, help="seconds per measurement")
    arguments = parser.parse_args()
    facts = command_line.begin()

    encoder = DocumentEncoder(arguments.tokenizer)
    ids, spans, num_bytes = read_text(arguments.documents, encoder)
    bytes_per_token = num_bytes / len(ids)
    print(f"{num_bytes / 1e6:.1f} MB, {bytes_per_token:.2f} bytes per token")
    print(f"{'strategy':>10} {'text':>7} {'length':>7} {'target':>7} {'MB/s':>7}")
    results = []
    for text, (length, target) in itertools.product(("packed", "long"), SHAPES):
        windows = list(itertools.islice(cut(ids, spans, length - 1, text == "long"), NUM_WINDOWS))
        for strategy in STRATEGIES:
            options = GapOptions(target_length=target, strategy=strategy)
            objective = GapSentences(encoder.vocabulary, options)
            speed = tokens_per_second(objective, windows, arguments.seconds)
            speed *= bytes_per_token / 1e6
            results.append((strategy, text, length, target, round(speed, 1)))
            print(f"{strategy:>10} {text:>7} {length:>7} {target:>7} {speed:>7.1f}", flush=True)
    names = ("strategy", "text", "length", "target", "megabytes_per_second")
    lines = [dict(zip(names, row, strict=True)) for row in results]
    command_line.write_results("gap_sentences", arguments, facts, lines)


def read_text(path: Path, encoder: DocumentEncoder) -> tuple[np.ndarray, np.ndarray, int]:
    """All ids concatenated, sentences (n, 3) as an objective gets them, and bytes of the text."""
    ids, spans, position, num_bytes = [], [], 0, 0
    for number, line in enumerate(path.open(encoding="utf-8")):
        text = json.loads(line)["text"]
        encoded = encoder.encode(text)
        starts = encoded.sentence_starts.astype(np.int64)
        ends = np.append(starts[1:], len(encoded.ids))
        numbers = np.full(len(starts), number)
        spans.append(np.stack([starts + position, ends + position, numbers], axis=1))
        ids.append(encoded.ids)
        position += len(encoded.ids)
        num_bytes += sum(len(sentence.encode()) + 1 for sentence in sentences_of(text))
    return np.concatenate(ids), np.concatenate(spans), num_bytes


def cut(ids: np.ndarray, spans: np.ndarray, capacity: int, is_long: bool):
    """Windows of whole sentences, as long as possible."""
    first = 0
    while first < len(spans):
        begin = spans[first, 0]
        last = int(np.searchsorted(spans[:, 1], begin + capacity, side="right"))
        if last <= first:
            first += 1  # a sentence longer than a window
            continue
        window = spans[first:last] - np.array([begin, begin, 0])
        if is_long:
            window[:, 2] = 0
        yield ids[begin : spans[last - 1, 1]], window
        first = last


def tokens_per_second(objective: GapSentences, windows: list[Window], least: float) -> float:
    num_tokens, began = 0, time.process_time()
    for step in itertools.count():
        for number, (ids, spans) in enumerate(windows):
            objective.choose(ids, spans, keyed_generator(0, "benchmark", step, number))
            num_tokens += len(ids)
        seconds = time.process_time() - began
        if seconds > least:
            return num_tokens / seconds
    raise AssertionError


if __name__ == "__main__":
    main()
