"""A shard job that is really killed or stopped: nothing half-written, nothing done twice."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.commands import command_line, contents
from support.corpus import Corpus
from support.processes import take_signals

from bigbird_ds.cli.main import main

MANY_SECONDS = 60.0


@pytest.fixture
def words(corpus: Corpus, tmp_path: Path) -> list[Any]:
    """A job of hundreds of units, some seconds: long enough to be stopped on a busy machine."""
    (tmp_path / "many.jsonl").write_bytes(corpus.documents.read_bytes() * 30)
    options = ["--tokenizer", corpus.tokenizer, "--unit-size", "16K", "--workers", 2]
    options += ["--duplicates", "keep"]
    return ["shard", tmp_path / "many.jsonl", *options]


def start(words: list[Any], out: Path) -> subprocess.Popen[bytes]:
    """Start the job in a new process group and wait until it has finished some units."""
    job = subprocess.Popen(
        command_line([*words, "--out", out]),
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=take_signals,
    )
    deadline = time.monotonic() + MANY_SECONDS
    while len(finished(out)) < 3:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    return job


def finished(out: Path) -> list[Path]:
    return list((out / ".units").glob("[0-9]*.json"))


def tars(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}


def expect_that_resuming_completes(words: list[Any], out: Path, tmp_path: Path) -> None:
    """Finished units are kept unchanged, and the result equals that of an uninterrupted job."""
    assert not (out / "manifest.json").exists()
    kept = {f"train-{path.stem}.tar" for path in finished(out)}
    times = {name: at for name, at in tars(out).items() if name in kept}
    assert len(times) >= 3
    assert main([str(word) for word in [*words, "--out", out, "--resume"]]) == 0
    assert {name: at for name, at in tars(out).items() if name in kept} == times
    assert main([str(word) for word in [*words, "--out", tmp_path / "clean"]]) == 0
    assert contents(out) == contents(tmp_path / "clean")


def test_a_killed_job_is_resumed(words: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = start(words, out)
    family = psutil.Process(job.pid).children(recursive=True)
    assert len(family) >= 2
    job.kill()
    job.wait()
    _, alive = psutil.wait_procs(family, timeout=MANY_SECONDS)
    assert not alive, "workers outlive their parent"
    expect_that_resuming_completes(words, out, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_job_leaves_nothing_half_written_and_is_resumed(
    number: signal.Signals, words: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = start(words, out)
    os.killpg(job.pid, number)  # as a terminal and SLURM do: to all processes
    _, message = job.communicate(timeout=MANY_SECONDS)
    assert job.returncode == 75, message.decode()
    assert b"--resume to continue" in message
    assert b"Traceback" not in message
    assert not list(out.rglob(".*.tmp"))
    expect_that_resuming_completes(words, out, tmp_path)


def test_a_worker_killed_in_its_first_unit_leaves_a_folder_that_resume_takes(
    words: list[Any], corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words[words.index("16K")] = "64M"  # one unit, some seconds
    job = subprocess.Popen(command_line([*words, "--out", out]), stderr=subprocess.PIPE)
    deadline = time.monotonic() + MANY_SECONDS
    while not list(out.glob(".*.tar.*.tmp")):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    for child in psutil.Process(job.pid).children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    _, message = job.communicate(timeout=MANY_SECONDS)
    assert job.returncode == 1, message.decode()
    assert b"run again with --resume" in message
    assert not out.exists()
    assert main([str(word) for word in [*words, "--out", out, "--resume"]]) == 0


def test_leftovers_of_a_job_killed_whole_in_its_first_unit_do_not_block(
    corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".train-00000.tar.host-0123456789ab.tmp").write_bytes(b"half")
    words = ["shard", corpus.documents, "--tokenizer", corpus.tokenizer, "--out", out]
    assert main([str(word) for word in words]) == 0
    assert not list(out.glob(".*"))


def test_a_second_job_is_refused_while_the_first_works_and_the_first_completes(
    words: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = start(words, out)
    second = subprocess.run(
        command_line([*words, "--out", out, "--resume"]), capture_output=True, check=False
    )
    assert second.returncode == 2
    assert b"another job is writing to this folder" in second.stderr
    assert f"process {job.pid}".encode() in second.stderr
    assert job.wait(timeout=MANY_SECONDS) == 0
    assert main(["verify", str(out)]) == 0
