"""Soak: real runs, faults at random moments from a seed, each run compared with an undisturbed one.

``make soak``, or ``python -m soak --minutes 20 --seed 1`` with the repository and ``tests`` on
PYTHONPATH. The disk is full in a small tmpfs, which needs root; elsewhere this fault is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.corpus import Corpus, bigbird_run_settings, make_corpus
from support.runs import changed

from soak.faults import FAULTS, HANG_TIMEOUT_S
from soak.lives import Layout, Life, NotSurvivedError, Place
from soak.report import describe, write_table
from soak.rounds import SAVE_EVERY, Round, Struck, summary, timer
from soak.verdict import differences

_DISK = "32m"


@dataclass
class Result:
    """What a soak found; ``failure`` is None if all was survived and equal."""

    seed: int
    rounds: int = 0
    lives: int = 0
    steps: int = 0
    struck: list[Struck] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    failure: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "rounds": self.rounds,
            "lives": self.lives,
            "steps": self.steps,
            "failure": self.failure,
            "faults": summary(self.struck, self.tried),
        }


def soak(
    folder: Path,
    corpus: Corpus,
    *,
    minutes: float,
    seed: int,
    steps: int,
    kinds: Sequence[str],
    most_faults: int | None = None,
) -> Result:
    """Rounds until the time is over or something is not survived; the last round is finished."""
    result = Result(seed, steps=steps)
    settings = changed(
        bigbird_run_settings(corpus, folder / "unused"),
        **{
            "data.validation": str(corpus.shards),
            "train.steps": steps,
            "train.save_every": SAVE_EVERY,
            "train.eval_every": 5 * SAVE_EVERY,
            "train.eval_windows": 8,
            "train.hang_timeout": HANG_TIMEOUT_S,
            "optimizer.lr": 1e-3,
        },
    )
    config = folder / "run.yaml"
    config.write_text(json.dumps(settings))  # JSON is YAML
    randoms = random.Random(seed)
    whole = _place(folder, folder, "whole", config, randoms)
    undisturbed = Life(whole, Layout(), 0)
    try:
        undisturbed.ends(0)
    finally:
        undisturbed.kill()

    goes_on = timer(minutes)

    def more() -> bool:
        return goes_on() and (most_faults is None or result.tried.total() < most_faults)

    with _small_disk(folder / "disk") as is_small:
        left = [kind for kind in kinds if is_small or not FAULTS[kind].needs_small_disk]
        while result.failure is None and (not result.rounds or more()):
            place = _place(folder, folder / "disk", f"round-{result.rounds}", config, randoms)
            changes_layout = result.rounds % 2 == 1
            this = Round(place, left, steps // 4, result.tried, more, _say)
            try:
                this.run(changes_layout)
                this.current = "comparison with the undisturbed run"
                if found := differences(place, whole, is_exact=not changes_layout):
                    raise NotSurvivedError("; ".join(found))
            except NotSurvivedError as cause:
                result.failure = (
                    f"round {result.rounds}, life {this.lives}, {this.current}: {cause}"
                )
                if place.run.exists():
                    shutil.copytree(place.run, folder / "failed")
            result.rounds += 1
            result.lives += this.lives
            result.struck += this.struck
            _say(f"round {result.rounds} done: {result.failure or 'equal to the undisturbed run'}")
            shutil.rmtree(place.run, ignore_errors=True)
    return result


def _place(folder: Path, disk: Path, name: str, config: Path, randoms: random.Random) -> Place:
    notes = folder / f"notes-{name}"
    for each in ("pids", "samples"):
        (notes / each).mkdir(parents=True)
    return Place(config, disk / name, notes, randoms)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """A small file system at ``folder``; False if this process may not mount one."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder)]
    is_small = os.geteuid() == 0 and not subprocess.run(words, check=False).returncode
    try:
        yield is_small
    finally:
        if is_small:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="time for faults (20)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all random choices")
    parser.add_argument("--steps", type=int, default=300, help="of a run (300)")
    parser.add_argument("--kind", action="append", choices=list(FAULTS), help="only these faults")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--table", type=Path, help="write the table into this Markdown page")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    _say(f"seed {options.seed}, {options.minutes:g} minutes, in {folder}")
    (folder / "corpus").mkdir()
    corpus = make_corpus(folder / "corpus")
    result = soak(
        folder,
        corpus,
        minutes=options.minutes,
        seed=options.seed,
        steps=options.steps,
        kinds=options.kind or list(FAULTS),
    )
    content = describe(result.as_json(), options.minutes)
    if options.json:
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    if options.table:
        write_table(options.table, content)
    if result.failure is not None:
        print(f"error: {result.failure}\nlogs and notes: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
