"""Tokens per second of only the data loader: reading, packing, masking, transfer between processes.

    python benchmarks/loader.py                                 # random text, generated on the spot
    python benchmarks/loader.py --shards DIR --tokenizer DIR    # your own

Counts non-padding tokens, as one rank receives them. It is fast enough if the figure is well above
what the rank's GPU trains on.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import command_line
import numpy as np

from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.format import TRAIN, Manifest, TokenizerRecord
from bigbird_ds.data.loader import TrainingBatches
from bigbird_ds.data.sample_meta import DocumentMeta
from bigbird_ds.data.shards import Shards
from bigbird_ds.objectives import OBJECTIVES, build_objective
from bigbird_ds.vocabulary import Vocabulary
from data_prep.shard_writer import UnitWriter

TOKENS_PER_MICRO_BATCH = 32_768
WARM_UP_STEPS = 8


@dataclass(frozen=True)
class Result:
    objective: str
    sequence_length: int
    workers: int
    tokens_per_second: float


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--shards", type=Path, help="shards folder (default: random text)")
    parser.add_argument("--tokenizer", type=Path, help="the tokenizer folder it was written with")
    parser.add_argument("--objective", choices=["mlm_nsp", "mlm"], default="mlm_nsp")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=5, help="seconds per measurement")
    arguments = parser.parse_args()
    if (arguments.shards is None) != (arguments.tokenizer is None):
        parser.error("--shards and --tokenizer must be given together")
    facts = command_line.begin()

    results = []
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.shards is None:
            vocabulary = _random_vocabulary()
            shards = Shards(_write_random_shards(Path(scratch), vocabulary))
        else:
            vocabulary = Vocabulary.from_folder(arguments.tokenizer)
            shards = Shards(arguments.shards)
        print(f"{shards.num_documents:,} documents, {shards.num_tokens:,} tokens")
        print(f"{'objective':>10} {'length':>8} {'workers':>8} {'tokens/s':>14}")
        for length, workers in itertools.product(arguments.lengths, arguments.workers):
            speed = _measure(
                shards, vocabulary, arguments.objective, length, workers, arguments.seconds
            )
            results.append(Result(arguments.objective, length, workers, speed))
            print(
                f"{arguments.objective:>10} {length:>8,} {workers:>8} {speed:>14,.0f}", flush=True
            )
    command_line.write_results("loader", arguments, facts, results)


def _measure(
    shards: Shards,
    vocabulary: Vocabulary,
    objective: str,
    length: int,
    workers: int,
    seconds: float,
) -> float:
    micro_batch = max(1, TOKENS_PER_MICRO_BATCH // length)
    batches = TrainingBatches(
        [Corpus(shards)],
        build_objective(objective, vocabulary, OBJECTIVES[objective].options_class()),
        seed=0,
        sequence_length=length,
        global_batch=micro_batch,
        micro_batch=micro_batch,
        workers=workers,
    )
    steps = iter(batches)
    for _ in range(WARM_UP_STEPS * max(1, workers)):  # also empties the queues
        next(steps)
    num_tokens, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step, _ = next(steps)
        num_tokens += sum(int(batch["attention_mask"].sum()) for batch in step)
    elapsed = time.perf_counter() - began
    batches.close()
    return num_tokens / elapsed


def _random_vocabulary() -> Vocabulary:
    """A vocabulary as large as BigBird's, with its special ids; half of the pieces begin a word."""
    size = 50_358
    return Vocabulary(
        size=size,
        pad=0,
        eos=1,
        bos=2,
        cls=65,
        sep=66,
        mask=67,
        unk=100,
        is_special=np.arange(size) <= 100,
        is_word_start=np.arange(size) % 2 == 0,
        sha256="random text",
    )


def _write_random_shards(folder: Path, vocabulary: Vocabulary) -> Path:
    """4 shards with 8 M tokens in documents of about 800 tokens, the mean length in Wikipedia."""
    generator = np.random.default_rng(0)
    records = []
    for unit in range(4):
        with UnitWriter(folder, unit) as writer:
            for length in generator.exponential(800, 2500).astype(int) + 1:
                ids = generator.integers(101, vocabulary.size, length).astype(np.uint16)
                starts = np.arange(0, length, 25, dtype=np.uint32)
                writer.write(TRAIN, ids, starts, DocumentMeta(5 * int(length)))
        records.append(writer.records()[TRAIN])
    tokenizer = TokenizerRecord(sha256=vocabulary.sha256, vocab_size=vocabulary.size)
    Manifest(tokenizer=tokenizer, options={}, splits={TRAIN: records}).write(folder)
    return folder


if __name__ == "__main__":
    main()
