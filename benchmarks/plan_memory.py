"""Planned memory of CPU runs next to the peak that real runs reach.

    python benchmarks/plan_memory.py --sizes tiny small
    python benchmarks/plan_memory.py --json result.json

Every run is a real one of two steps under DeepSpeed (ZeRO-1, fp32): BigBird and BigBirdPegasus,
with and without activation checkpointing; and BigBird on two ranks that share sequences. The
measured peak is the resident set of the rank that has most, as its metrics record it. Freed memory
is returned to the system (``MALLOC_MMAP_MAX_=65536``); ``--keep-freed`` measures the default of a
CPU run, which is faster and keeps it (``bigbird_ds/cpu_memory.py``).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # the package need not be installed

import command_line  # noqa: E402

# layers, hidden size, heads, sequence length, target length of BigBirdPegasus
SIZES = {
    "tiny": (2, 128, 2, 1024, 128),
    "small": (4, 512, 8, 4096, 256),
    "base": (12, 768, 12, 2048, 256),
}


def main() -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--families", nargs="+", default=["bigbird", "pegasus"])
    parser.add_argument("--keep-freed", action="store_true", help="the default allocator setting")
    arguments = parser.parse_args()
    if not arguments.keep_freed:
        os.environ["MALLOC_MMAP_MAX_"] = "65536"
    facts = command_line.begin()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for family in arguments.families:
            make_shards(Path(folder), family)
            for size, checkpointing in itertools.product(arguments.sizes, (False, True)):
                for ranks in (1, 2) if family == "bigbird" else (1,):
                    case = {
                        "family": family,
                        "size": size,
                        "checkpointing": checkpointing,
                        "sequence_ranks": ranks,
                    }
                    config = write_config(Path(folder), **case)
                    planned, measured = plan(config, ranks), run(config, ranks, Path(folder))
                    results.append(case | {"planned_gib": planned, "measured_gib": measured})
                    print(
                        f"{family:<8} {size:<6} checkpointing {checkpointing!s:<5} P={ranks}  "
                        f"planned {planned:6.2f} GiB  measured {measured:6.2f} GiB  "
                        f"{planned / measured - 1:+.0%}",
                        flush=True,
                    )
    command_line.write_results("plan_memory", arguments, facts, results)
    return 0


def make_shards(folder: Path, family: str) -> None:
    documents = folder / "documents.jsonl"
    if not documents.exists():
        python("-m", "data_prep.python_docs", documents)
        documents.write_text("".join(documents.read_text().splitlines(keepends=True)[:300]))
    tokenizer = folder / f"tokenizer-{family}"
    options = ["--vocab-size", "2000", "--family", family]
    command("tokenizer", documents, "--out", tokenizer, *options)
    command("shard", documents, "--tokenizer", tokenizer, "--out", folder / f"shards-{family}")


def write_config(
    folder: Path, family: str, size: str, checkpointing: bool, sequence_ranks: int
) -> Path:
    layers, hidden, heads, length, target = SIZES[size]
    if family == "bigbird":
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
        model = dict(zip(names, (layers, hidden, heads, 4 * hidden), strict=True))
        objective: dict[str, Any] = {"name": "mlm_nsp"}
    else:
        model = {"d_model": hidden}
        for stack in ("encoder", "decoder"):
            model |= {
                f"{stack}_layers": layers,
                f"{stack}_attention_heads": heads,
                f"{stack}_ffn_dim": 4 * hidden,
            }
        objective = {"name": "gap_sentences", "target_length": target}
    model["max_position_embeddings"] = length
    settings = {
        "model": model,
        "objective": objective,
        "data": {
            "train": str(folder / f"shards-{family}"),
            "tokenizer": str(folder / f"tokenizer-{family}"),
            "sequence_length": length,
            "workers": 1,
        },
        "batch": {"sequences": 2, "micro": 2},
        "parallel": {"sequence": sequence_ranks},
        "train": {
            "steps": 2,
            "log_every": 1,
            "save_every": 0,
            "activation_checkpointing": checkpointing,
        },
        "output": str(folder / "run"),
        "resume": "never",
    }
    path = folder / "run.json"  # JSON is YAML
    path.write_text(json.dumps(settings))
    return path


def plan(config: Path, ranks: int) -> float:
    text = command("plan", config, "--ranks", ranks)
    found = re.search(r"memory per rank: ([\d.]+) GiB", text)
    assert found, text
    return float(found[1])


def run(config: Path, ranks: int, folder: Path) -> float:
    subprocess.run(["rm", "-rf", str(folder / "run")], check=True)
    launch = (
        [sys.executable]
        if ranks == 1
        else ["deepspeed", "--num_gpus", str(ranks), "--master_port", "29731"]
    )
    words = [*launch, "launch/pretrain.py", str(config)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return max(json.loads(line).get("memory_gib", 0.0) for line in lines)


def command(*words: Any) -> str:
    return python("-m", "bigbird_ds.cli.main", *words)


def python(*words: Any) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def environment() -> dict[str, str]:
    binaries = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": binaries, "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}


if __name__ == "__main__":
    sys.exit(main())
