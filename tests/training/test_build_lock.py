"""A lock that a killed compiler left behind is removed; one that is held is waited for."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bigbird_ds.training.build_lock import EXTENSION_NAME, wait_for_build


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    path = tmp_path / EXTENSION_NAME / "lock"
    path.parent.mkdir()
    return path


def test_a_lock_that_nobody_holds_is_removed(lock: Path) -> None:
    lock.touch()
    wait_for_build(grace_s=-1)
    assert not lock.exists()


def test_a_lock_that_is_held_is_waited_for(lock: Path) -> None:
    # As torch takes and gives back its lock.
    descriptor = os.open(lock, os.O_CREAT | os.O_EXCL)
    waiting = threading.Thread(target=wait_for_build, args=(-1,))
    waiting.start()
    waiting.join(timeout=1.5)
    assert waiting.is_alive() and lock.exists()
    os.close(descriptor)
    lock.unlink()
    waiting.join(timeout=30)
    assert not waiting.is_alive()


def test_a_young_lock_is_believed_to_be_another_machines(lock: Path) -> None:
    lock.touch()
    waiting = threading.Thread(target=wait_for_build, args=(3600,))
    waiting.start()
    waiting.join(timeout=1.5)
    assert waiting.is_alive()
    lock.unlink()
    waiting.join(timeout=30)
    assert not waiting.is_alive()
