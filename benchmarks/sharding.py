"""Speed and memory of `bigbird-ds shard`, beside `map` of the datasets library.

    python benchmarks/sharding.py DOCUMENTS.jsonl TOKENIZER [--json FILE]

Both tokenize the same documents with the same tokenizer folder, in turns, each job in a process of
its own. Ours is the whole job (sentences, duplicates, unknown characters, shards, hashes); theirs
is only `map` with AutoTokenizer, and its Arrow file. A figure per core is megabytes of input per
second of processor time, of all processes of a job, so that other load affects it less. Memory is
the largest sum over the processes of a job with one long document among others: pages that
processes share count once.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import command_line

JOB = Path(__file__).with_name("sharding_job.py")
OURS, THEIRS = "bigbird-ds shard", "datasets.map"
MEMORY_WORKERS = 4
SECONDS_BETWEEN_SAMPLES = 0.1


@dataclass(frozen=True)
class Measured:
    """One job: its seconds by the clock, and of processor time over all its processes."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Result:
    """Medians of a contender; ``ratio`` is of its speed per core to that of `datasets.map`."""

    name: str
    workers: int
    seconds: float
    megabytes_per_second: float
    megabytes_per_cpu_second: float
    ratio: float


@dataclass(frozen=True)
class Memory:
    """The peak of a job with one long document among others."""

    workers: int
    document_megabytes: float
    peak_mb: float


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("documents", type=Path, help='JSON lines with the field "text"')
    parser.add_argument("tokenizer", type=Path, help="tokenizer folder")
    parser.add_argument("--megabytes", type=float, default=24, help="of text, repeated if needed")
    parser.add_argument("--document-megabytes", type=float, default=100, help="the long document")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=2, help="timed jobs per contender")
    arguments = parser.parse_args()
    facts = command_line.begin()
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.jsonl"
        num_bytes = write_corpus(arguments.documents, corpus, arguments.megabytes)
        jobs = [
            (name, workers, functools.partial(run, job, corpus, arguments.tokenizer, workers))
            for name, job in ((OURS, "shard"), (THEIRS, "map"))
            for workers in arguments.workers
        ]
        rounds = [[job() for _, _, job in jobs] for _ in range(arguments.repeats)]
        results = compare([job[:2] for job in jobs], rounds, num_bytes / 1e6)
        print(f"{'':>18} {'workers':>7} {'seconds':>8} {'MB/s':>6} {'per core':>8} {'ratio':>6}")
        for each in results:
            print(
                f"{each.name:>18} {each.workers:>7} {each.seconds:>8.1f}"
                f" {each.megabytes_per_second:>6.1f} {each.megabytes_per_cpu_second:>8.1f}"
                f" {each.ratio:>6.2f}",
                flush=True,
            )
        memory = measure_memory(
            arguments.documents, arguments.tokenizer, Path(scratch), arguments.document_megabytes
        )
    print(f"{memory.workers} workers, one long document: at most {memory.peak_mb:,.0f} MB")
    command_line.write_results("sharding", arguments, facts, [*results, memory])


def write_corpus(documents: Path, out: Path, megabytes: float) -> int:
    """Write documents of that size in all, without duplicates. Returns their bytes."""
    texts = [json.loads(line)["text"] for line in documents.open(encoding="utf-8")]
    with out.open("w", encoding="utf-8") as stream:
        for number, text in enumerate(itertools.cycle(texts)):
            if stream.tell() >= 1e6 * megabytes:
                break
            stream.write(json.dumps({"text": f"Document {number}.\n\n{text}"}) + "\n")
    return out.stat().st_size


def compare(
    jobs: list[tuple[str, int]], rounds: list[list[Measured]], megabytes: float
) -> list[Result]:
    """The medians of each job over the rounds."""
    of_jobs = list(zip(*rounds, strict=True))
    seconds = [median(each.seconds for each in line) for line in of_jobs]
    cpu_seconds = [median(each.cpu_seconds for each in line) for line in of_jobs]
    theirs = {
        workers: cpu
        for (name, workers), cpu in zip(jobs, cpu_seconds, strict=True)
        if name == THEIRS
    }
    return [
        Result(name, workers, wall, megabytes / wall, megabytes / cpu, theirs[workers] / cpu)
        for (name, workers), wall, cpu in zip(jobs, seconds, cpu_seconds, strict=True)
    ]


def start(
    job: str, source: Path, tokenizer: Path, out: Path, workers: int, unit: int
) -> subprocess.Popen[str]:
    """Start a job of sharding_job.py, with one thread in each process."""
    words = [sys.executable, JOB, job, source, tokenizer, out, "--workers", workers, "--unit", unit]
    alone = {"TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_OFFLINE": "1"}
    environment = os.environ | alone
    return subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> Measured:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a job failed: {process.args}")
    return Measured(**json.loads(output.splitlines()[-1]))


def run(job: str, corpus: Path, tokenizer: Path, workers: int) -> Measured:
    unit = -(-corpus.stat().st_size // (2 * workers))  # two for each worker
    with tempfile.TemporaryDirectory() as scratch:
        return finish(start(job, corpus, tokenizer, Path(scratch) / "out", workers, unit))


def measure_memory(documents: Path, tokenizer: Path, scratch: Path, megabytes: float) -> Memory:
    """The peak of 4 workers on one document of that size, and as much text in short ones."""
    folder = scratch / "inputs"
    folder.mkdir()
    num_bytes = write_corpus(documents, folder / "short.jsonl", megabytes)
    texts = [json.loads(line)["text"] for line in documents.open(encoding="utf-8")]
    with (folder / "long.txt").open("w", encoding="utf-8") as stream:
        for text in itertools.cycle(texts):
            if stream.tell() >= 1e6 * megabytes:
                break
            stream.write(text + "\n\n")
    unit = num_bytes // (2 * MEMORY_WORKERS)
    job = start("shard", folder, tokenizer, scratch / "shards", MEMORY_WORKERS, unit)
    peak = 0.0
    while job.poll() is None:
        peak = max(peak, sum(map(_megabytes, _descendants(job.pid))))
        time.sleep(SECONDS_BETWEEN_SAMPLES)
    finish(job)
    return Memory(MEMORY_WORKERS, megabytes, peak)


def _descendants(process: int) -> Iterator[int]:
    """A process and all below it."""
    yield process
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return
    for child in children:
        yield from _descendants(int(child))


def _megabytes(process: int) -> float:
    """Memory of a process; a page that n processes share counts 1/n."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


if __name__ == "__main__":
    main()
