"""Does more visible context lower the loss of a model that was trained here? On Perl's manual.

    python benchmarks/context_lowers_loss.py --json context.json --draw context.png
    python benchmarks/context_lowers_loss.py --documents FOLDER       # your own long documents

Needs apt-get and dpkg-deb, unless ``--documents`` is given. Everything goes to ``--work``; what
exists there is reused. The steps are those of any run:

1. Documents: the .pod files of Debian's perl-doc (never part of this repository).
2. Tokenizer and shards, a tenth of the documents for validation.
3. A tiny BigBird of style uniform: masked language modeling in the ``--stages``, each a
   ``continue_from`` of the one before at another length with the same optimizer.
4. ``bigbird-ds evaluate --lengths``: the same targets, the visible text cut to each length.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import command_line
from debian_package import fetch_package

ROOT = Path(__file__).resolve().parents[1]
PRETRAIN = [sys.executable, str(ROOT / "launch" / "pretrain.py")]


def main() -> int:
    arguments = make_parser().parse_args()
    facts = command_line.begin()
    arguments.work.mkdir(parents=True, exist_ok=True)
    prepare(arguments)
    run = train(arguments)
    found = evaluate(run, arguments)
    command_line.write_results("context_lowers_loss", arguments, facts, [found])
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = command_line.parser(__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/context"))
    parser.add_argument("--documents", type=Path, help="files or folder, instead of perl-doc")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument(
        "--stages",
        type=stage,
        nargs="+",
        default=[[64, 700], [1024, 900]],
        metavar="LENGTH:STEPS",
        help="of the training, in order",
    )
    parser.add_argument("--tokens", type=int, default=2048, help="in a step")
    parser.add_argument("--mask-fraction", type=float, default=0.3, help="of the tokens")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--block", type=int, default=16, help="tokens of an attention block")
    parser.add_argument("--vocabulary", type=int, default=4000, help="pieces")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data order and masks")
    parser.add_argument("--draw", type=Path, help="PNG of bits and accuracy by visible length")
    return parser


def stage(text: str) -> list[int]:
    length, steps = text.split(":")
    return [int(length), int(steps)]


def prepare(arguments: argparse.Namespace) -> None:
    """The tokenizer and the shards, in ``--work``."""
    work = arguments.work
    documents = arguments.documents or fetch(work)
    tokenizer, shards = work / "tokenizer", work / "shards"
    if not (tokenizer / "tokenizer.json").exists():
        words = ["--out", tokenizer, "--vocab-size", arguments.vocabulary]
        bigbird_ds("tokenizer", documents, *words)
    if not (shards / "manifest.json").exists():
        words = ["--out", shards, "--tokenizer", tokenizer, "--validation-fraction", "0.1"]
        bigbird_ds("shard", documents, *words, "--workers", "2")


def fetch(work: Path) -> Path:
    """The .pod files of perl-doc as a folder of .txt files."""
    documents = work / "documents"
    if documents.exists():
        return documents
    files = fetch_package("perl-doc", work / "package")
    part = work / "documents.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for pod in sorted(files.rglob("*.pod")):
        text = pod.read_text(encoding="utf-8", errors="replace")
        (part / f"{pod.stem}.txt").write_text(text, encoding="utf-8")
    part.rename(documents)
    return documents


def train(arguments: argparse.Namespace) -> Path:
    """All stages; returns the folder of the last."""
    total, end, before = sum(steps for _, steps in arguments.stages), 0, None
    for number, (length, steps) in enumerate(arguments.stages, start=1):
        end, output = end + steps, arguments.work / f"stage-{number}"
        config = run_config(arguments, output, length, end, total)
        if before is not None:
            config["continue_from"] = str(before)
        file = arguments.work / f"{output.name}.yaml"
        file.write_text(json.dumps(config, indent=1))  # JSON is YAML
        print("$ python launch/pretrain.py", file, flush=True)
        subprocess.run([*PRETRAIN, str(file)], check=True)
        before = output
    assert before is not None
    return before


def run_config(
    arguments: argparse.Namespace, output: Path, length: int, end: int, total: int
) -> dict[str, Any]:
    sequences = max(arguments.tokens // length, 1)
    return {
        "model": {
            "hidden_size": arguments.width,
            "num_hidden_layers": arguments.layers,
            "num_attention_heads": arguments.heads,
            "intermediate_size": 4 * arguments.width,
            "max_position_embeddings": length,
            "block_size": arguments.block,
            "num_random_blocks": 3,
            "random_style": "uniform",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.05,
        },
        "objective": {"name": "mlm", "mask_fraction": arguments.mask_fraction},
        "data": {
            "train": str(arguments.work / "shards"),
            "validation": str(arguments.work / "shards"),
            "tokenizer": str(arguments.work / "tokenizer"),
            "sequence_length": length,
            "workers": 0,
        },
        "batch": {"sequences": sequences, "micro": sequences},
        "optimizer": {"lr": arguments.lr},
        "schedule": {"warmup_steps": min(50, total // 4), "total_steps": total},
        "train": {
            "seed": arguments.seed,
            "steps": end,
            "save_every": 0,
            "eval_every": 0,
            "log_every": 100,
        },
        "output": str(output),
    }


def evaluate(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The numbers of ``bigbird-ds evaluate --lengths``, without the paths of this machine."""
    target = arguments.work / "lengths.json"
    words = ["--lengths", *arguments.lengths, "--json", target]
    if arguments.draw is not None:
        words += ["--out", arguments.draw]
    bigbird_ds("evaluate", run, arguments.work / "shards", *words)
    found: dict[str, Any] = json.loads(target.read_text())
    return {name: value for name, value in found.items() if name not in ("model", "shards")}


def bigbird_ds(*words: Any) -> None:
    print("$ bigbird-ds", *words, flush=True)
    command = [sys.executable, "-m", "bigbird_ds.cli.main", *map(str, words)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
