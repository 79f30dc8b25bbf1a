"""A second job in a folder is refused while the first is alive, and takes over after its death."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bigbird_ds.errors import DataError
from data_prep import job_lock
from data_prep.job_lock import JobLock, owners

HOLDER = """
import sys
from pathlib import Path
from data_prep.job_lock import JobLock
JobLock(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))).acquire()
print("held", flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process that holds the lock of a part."""

    def __init__(self, folder: Path, part: tuple[int, int]) -> None:
        words = [sys.executable, "-c", HOLDER, str(folder), *map(str, part)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out" / ".units"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_lock, "WATCH_S", 0.5)


@pytest.mark.parametrize("mine", [(1, 2), (1, 1), (3, 4), (1, 3)])
def test_a_part_with_a_common_unit_is_refused_and_told_by_whom(
    mine: tuple[int, int], folder: Path
) -> None:
    holder = Holder(folder, (1, 2))
    try:
        with pytest.raises(DataError, match="another job is writing to this folder") as error:
            JobLock(folder, mine).acquire()
        assert f"process {holder.process.pid} on {platform.node()}, since 20" in error.value.seen
    finally:
        holder.kill()


@pytest.mark.parametrize("mine", [(2, 2), (2, 4), (4, 4)])
def test_parts_without_a_common_unit_work_side_by_side(mine: tuple[int, int], folder: Path) -> None:
    holder = Holder(folder, (1, 2))
    try:
        lock = JobLock(folder, mine)
        lock.acquire()
        assert len(owners(folder)) == 2
        lock.release()
        assert len(owners(folder)) == 1
    finally:
        holder.kill()


@pytest.mark.parametrize("mine", [(1, 2), (1, 1)])
def test_a_killed_owner_on_this_machine_is_followed_at_once(
    mine: tuple[int, int], folder: Path
) -> None:
    Holder(folder, (1, 2)).kill()
    lock = JobLock(folder, mine)
    lock.acquire()
    assert len(owners(folder)) == 1
    lock.release()
    assert list(folder.iterdir()) == []


def write_foreign(folder: Path, count: int) -> None:
    owner = {"host": "elsewhere", "process": 1, "since": "2026-01-01 00:00:00 +0000"}
    (folder / "lock-1-of-1").write_text(json.dumps({**owner, "count": count}))


def test_an_owner_on_another_machine_that_counts_on_lives(
    folder: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_foreign(folder, 0)
    monkeypatch.setattr(job_lock.time, "sleep", lambda seconds: write_foreign(folder, 1))
    with pytest.raises(DataError, match="another job is writing") as error:
        JobLock(folder, (1, 1)).acquire()
    assert "process 1 on elsewhere" in error.value.seen


def test_an_owner_on_another_machine_that_counts_no_more_is_gone(folder: Path, quick: None) -> None:
    write_foreign(folder, 7)
    lock = JobLock(folder, (1, 1))
    lock.acquire()
    assert platform.node() in owners(folder)[0]
    lock.release()


def test_the_owner_counts_while_it_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_lock, "BEAT_S", 0.01)
    lock = JobLock(folder, (1, 1))
    lock.acquire()
    path = folder / "lock-1-of-1"
    while json.loads(path.read_text())["count"] < 3:
        pass
    lock.release()
