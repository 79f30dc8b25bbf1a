"""Memory of the shards' index in one rank, and the time to plan an epoch.

Writes the index of a corpus without its text (the tars are sparse files), then opens and plans it
in a fresh process. Memory is that of the process's own pages (RssAnon): pages of mapped files are
shared by the ranks of a machine, and the system may drop them.

    python benchmarks/index_memory.py
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import command_line
import numpy as np

from bigbird_ds.data.format import (
    DOCUMENT_DTYPE,
    TRAIN,
    FileRecord,
    Manifest,
    ShardRecord,
    TokenizerRecord,
    shard_file_names,
    shard_stem,
)
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.windows import EpochPlan, Geometry

NUM_SHARDS = 64
TOKENS_PER_SENTENCE = 16
GEOMETRY = Geometry(parts_per_window=2, part_capacity=2046, exchanges_second_part=True)


@dataclass(frozen=True)
class Result:
    """MB of one process: before, opened, with one epoch planned, with two, and at most."""

    sentences: int
    tokens: int
    documents: int
    before_mb: float
    opened_mb: float
    planned_mb: float
    both_mb: float
    peak_mb: float
    open_s: float
    plan_cpu_s: float


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--sentences", type=int, default=100_000_000)
    parser.add_argument("--tokens-per-document", type=int, default=592, help="as Wikipedia")
    arguments = parser.parse_args()
    facts = command_line.begin()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "shards"
        per_document = max(1, arguments.tokens_per_document // TOKENS_PER_SENTENCE)
        write_index(folder, arguments.sentences, per_document)
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            result = pool.apply(measure, (folder,))
    for name, value in vars(result).items():
        print(f"{name:>12} {value:>16,.1f}")
    command_line.write_results("index_memory", arguments, facts, [result])


def write_index(folder: Path, num_sentences: int, per_document: int) -> None:
    """A shards folder of documents of ``per_document`` sentences, with empty tars."""
    folder.mkdir()
    documents = max(1, num_sentences // per_document // NUM_SHARDS)
    tokens = per_document * TOKENS_PER_SENTENCE
    table = np.zeros(documents, DOCUMENT_DTYPE)
    table["num_tokens"], table["num_sentences"] = tokens, per_document
    table["num_chars"] = 5 * tokens
    table["ids_offset"] = 2 * tokens * np.arange(documents)
    starts = np.arange(per_document, dtype=np.uint32) * TOKENS_PER_SENTENCE
    sentences = np.tile(starts, documents)
    records = []
    for unit in range(NUM_SHARDS):
        names = shard_file_names(shard_stem(TRAIN, unit))
        with (folder / names[0]).open("wb") as tar:
            tar.truncate(2 * tokens * documents)
        np.save(folder / names[1], table)
        np.save(folder / names[2], sentences)
        tar_record, *indexes = (
            FileRecord(name=name, bytes=(folder / name).stat().st_size, sha256="0" * 64)
            for name in names
        )
        counts = {
            name: int(table[name].sum(dtype=np.int64)) for name in ("num_tokens", "num_chars")
        }
        records.append(
            ShardRecord(
                tar=tar_record,
                documents=indexes[0],
                sentences=indexes[1],
                num_documents=documents,
                num_sentences=len(sentences),
                **counts,
            )
        )
    tokenizer = TokenizerRecord(sha256="0" * 64, vocab_size=50_358)
    Manifest(tokenizer=tokenizer, options={}, splits={TRAIN: records}).write(folder)


def measure(folder: Path) -> Result:
    """Open the shards and plan two epochs, as a run does while it reads the first."""
    before = _own_mb()
    began = time.perf_counter()
    shards = Shards(folder)
    opened, opened_mb = time.perf_counter(), _own_mb()
    peak, ended = [opened_mb], threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            peak.append(_own_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began_plan = time.process_time()
    plan = EpochPlan(shards.document_index(), GEOMETRY, 0, 0)
    planned, planned_mb = time.process_time(), _own_mb()
    following = EpochPlan(shards.document_index(), GEOMETRY, 0, 1)
    ended.set()
    watcher.join()
    assert len(plan) > 0 and len(following) > 0
    return Result(
        sentences=shards.num_sentences,
        tokens=shards.num_tokens,
        documents=shards.num_documents,
        before_mb=before,
        opened_mb=opened_mb,
        planned_mb=planned_mb,
        both_mb=_own_mb(),
        peak_mb=max(peak),
        open_s=opened - began,
        plan_cpu_s=planned - began_plan,
    )


def _own_mb() -> float:
    """The memory of this process that it shares with no other, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


if __name__ == "__main__":
    main()
