"""One job of benchmarks/sharding.py, in a process of its own that loads no more than it needs.

    python benchmarks/sharding_job.py shard|map INPUT TOKENIZER OUT --workers N [--unit BYTES]

Prints its seconds, and its processor seconds with those of its workers, as JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

from data_prep.shard_job import ShardOptions, write_shards


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=("shard", "map"))
    parser.add_argument("input", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--unit", type=int, help="bytes of input per shard")
    arguments = parser.parse_args()
    seconds, cpu_seconds = (shard if arguments.job == "shard" else tokenize)(arguments)
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}))


def shard(arguments: argparse.Namespace) -> tuple[float, float]:
    options = ShardOptions(workers=arguments.workers, unit_bytes=arguments.unit)
    began, cpu_began = time.perf_counter(), _cpu_seconds()
    write_shards([str(arguments.input)], arguments.tokenizer, arguments.out, options)
    return time.perf_counter() - began, _cpu_seconds() - cpu_began


def tokenize(arguments: argparse.Namespace) -> tuple[float, float]:
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    texts = datasets.load_dataset(
        "json", data_files=str(arguments.input), split="train", cache_dir=str(arguments.out)
    )
    began, cpu_began = time.perf_counter(), _cpu_seconds()
    texts.map(
        lambda batch: tokenizer(batch["text"], add_special_tokens=False),
        batched=True,
        batch_size=100,
        num_proc=arguments.workers if arguments.workers > 1 else None,
        remove_columns=["text"],
    )
    return time.perf_counter() - began, _cpu_seconds() - cpu_began


def _cpu_seconds() -> float:
    """Of this process and of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
