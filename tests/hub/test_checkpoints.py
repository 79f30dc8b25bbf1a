"""A damaged checkpoint is named and skipped, whichever bit of it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bigbird_ds.errors import CheckpointError
from bigbird_ds.file_records import FileRecord
from bigbird_ds.hub.checkpoints import (
    FORMAT,
    LATEST_NAME,
    MANIFEST_NAME,
    STATE_NAME,
    VERSION,
    newest_intact,
    read_state,
    verify_checkpoint,
)

STATE = {"step": 7, "tokens": 100, "data": {"epoch": 0}, "run_config": {"train": {"steps": 9}}}


def make_checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / STATE_NAME).write_text(json.dumps(STATE))
    (folder / "model.safetensors").write_bytes(bytes(range(64)))
    names = (STATE_NAME, "model.safetensors")
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "files": [FileRecord.of(folder / name).model_dump() for name in names],
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    return folder


def is_named_as_damaged(folder: Path) -> bool:
    """Whether only the expected error was raised."""
    try:
        verify_checkpoint(folder)
    except CheckpointError:
        return True
    return False


def test_every_bit_of_every_file_is_covered(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 7)
    for path in folder.iterdir():
        whole = path.read_bytes()
        harmless = []
        for place in range(8 * len(whole)):
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            if not is_named_as_damaged(folder):
                harmless.append(bytes(flipped))
        path.write_bytes(whole)
        # Of the manifest, white space between two JSON values may change into other white space.
        assert all(json.loads(text) == json.loads(whole) for text in harmless), path
    assert not is_named_as_damaged(folder)


def test_a_file_that_is_cut_anywhere_is_named(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 7)
    for path in folder.iterdir():
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert is_named_as_damaged(folder), (path, length)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"format": 1}', "9" * 5000, "[" * 5000, '"\\ud800"', "null", "\x00"],
    ids=lambda text: text[:12],
)
def test_a_manifest_or_state_of_anything_else_is_named(text: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 7)
    (folder / STATE_NAME).write_text(text)
    with pytest.raises(CheckpointError, match="the checkpoint's state"):
        read_state(folder)
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(CheckpointError, match="the checkpoint's manifest"):
        verify_checkpoint(folder)


def test_the_newest_intact_checkpoint_is_taken(tmp_path: Path) -> None:
    older, newer = make_checkpoint(tmp_path, 7), make_checkpoint(tmp_path, 8)
    assert newest_intact(tmp_path) == newer
    (newer / MANIFEST_NAME).write_text("{}")
    assert newest_intact(tmp_path) == older
    (older / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="step-8"):
        newest_intact(tmp_path)


def test_a_run_whose_checkpoints_are_gone_does_not_start_at_step_0(tmp_path: Path) -> None:
    assert newest_intact(tmp_path) is None
    (tmp_path / LATEST_NAME).write_text("step-40\n")
    with pytest.raises(CheckpointError, match=r"names step-40, no checkpoint in .*checkpoints"):
        newest_intact(tmp_path)
