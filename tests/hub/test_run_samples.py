"""The file of sample predictions in a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigbird_ds.hub import run_samples
from bigbird_ds.hub.run_samples import read_samples, samples_in_words, write_samples

MASKED = {"masked": [{"before": "a", "target": "b", "predicted": "c", "after": "d"}]}


def steps(folder: Path) -> list[int]:
    return [record["step"] for record in read_samples(folder)]


def test_an_evaluation_after_a_resume_replaces_itself_and_later_ones(tmp_path: Path) -> None:
    for step in (2, 4, 6, 4):
        write_samples(tmp_path, {"step": step, "samples": [MASKED]})
    assert steps(tmp_path) == [2, 4]


def test_a_long_file_keeps_every_second_evaluation_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_samples, "_MOST_EVALUATIONS", 4)
    for step in range(1, 7):
        write_samples(tmp_path, {"step": step, "samples": []})
    assert steps(tmp_path) == [1, 3, 5, 6]


def test_a_damaged_file_and_a_full_disk_do_not_end_a_run(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_bytes(b'\xff\n[1]\n{"step": 1}\n{"st')
    write_samples(tmp_path, {"step": 2})
    assert steps(tmp_path) == [1, 2]
    write_samples(tmp_path / "missing", {"step": 3})


def test_the_text_has_the_target_beside_the_prediction() -> None:
    text = samples_in_words([MASKED, {"target": "x y", "prediction": "x z"}])
    assert text.splitlines() == [
        "sample 1",
        "  a {b | c} d",
        "sample 2",
        "  target: x y",
        "  prediction: x z",
    ]
