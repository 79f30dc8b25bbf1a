"""``make soak`` works: faults happen to a run, and its comparison finds what differs."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.corpus import Corpus

from soak import rounds
from soak.__main__ import soak
from soak.lives import Place
from soak.report import BEGIN, END, describe, write_table
from soak.rounds import Round, Struck, summary
from soak.verdict import differences

KINDS = ["stop signal during the start", "all ranks killed in a save"]


@pytest.mark.launch
def test_a_run_survives_two_faults_and_what_differs_is_found(
    corpus: Corpus, tmp_path: Path
) -> None:
    result = soak(tmp_path, corpus, minutes=60, seed=3, steps=24, kinds=KINDS, most_faults=2)
    assert result.failure is None
    assert result.tried == dict.fromkeys(KINDS, 1) and result.rounds == 1 and result.lives == 3
    rows = result.as_json()["faults"]
    assert [row["survived"] for row in rows] == [1, 1] and rows[0]["steps_lost"] == [0, 0]

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(page, describe(result.as_json(), 60))
    text = page.read_text()
    assert "old" not in text and text.startswith("before\n") and text.endswith("\nafter\n")
    assert "| all ranks killed in a save | 1 | 1 | at the next start |" in text

    notes = tmp_path / "notes-whole"
    whole = Place(tmp_path, tmp_path / "whole", notes, random.Random())
    copy = Place(tmp_path, tmp_path / "copy", tmp_path / "notes-copy", random.Random())
    shutil.copytree(whole.run, copy.run)
    shutil.copytree(notes, copy.notes)
    assert differences(copy, whole, is_exact=True) == []
    path = copy.run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    changed = json.loads(lines[2]) | {"loss": json.loads(lines[2])["loss"] * (1 + 1e-6)}
    path.write_text("\n".join([*lines[:2], json.dumps(changed), *lines[3:]]))
    assert differences(copy, whole, is_exact=False) == []
    (said,) = differences(copy, whole, is_exact=True)
    assert said.startswith("step 3: loss ")
    path.write_text("\n".join([*lines[:2], lines[1], *lines[4:]]))
    samples = copy.notes / "samples" / "0-1.jsonl"
    samples.write_text("\n".join(samples.read_text().splitlines()[:-1]))
    doubled, missing, others = differences(copy, whole, is_exact=False)
    assert "[2]" in doubled and "without [3, 4]" in missing and others.endswith("in steps [24]")


def test_a_fault_that_lost_more_than_it_may_is_not_survived() -> None:
    from soak.lives import NotSurvivedError

    class Said:
        def said(self) -> str:
            return ""

    Struck("one rank killed", 1.0, 25).check(Said(), 10)  # type: ignore[arg-type]
    with pytest.raises(NotSurvivedError, match="1 steps were lost"):
        Struck("file `STOP`", 1.0, 25).check(Said(), 24)  # type: ignore[arg-type]
    with pytest.raises(NotSurvivedError, match="does not say"):
        Struck("last checkpoint deleted", 1.0, 25, "skipped ").check(Said(), 20)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_done", [True, False])
def test_a_fault_is_survived_if_the_run_came_to_its_end_meanwhile(
    is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "second run in the folder"
    fault = SimpleNamespace(strike=lambda life: 1.0, at_start=False)
    monkeypatch.setitem(rounds.FAULTS, kind, fault)  # type: ignore[arg-type]
    place: Any = SimpleNamespace(last_step=lambda: 24)
    life: Any = SimpleNamespace(has_ended=True, is_done=is_done, layout="", next_says=None)
    tried: Counter[str] = Counter()
    round_ = Round(place, [kind], 8, tried, lambda: False, lambda line: None)
    round_._strike(kind, life)
    (row,) = summary(round_.struck, tried)
    assert (row["tried"], row["survived"]) == (1, int(is_done))
