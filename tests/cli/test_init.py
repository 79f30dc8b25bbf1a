"""``bigbird-ds init`` writes all launch scripts and configs, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import contents
from support.processes import REPOSITORY

from bigbird_ds.cli.init import project_files
from bigbird_ds.cli.main import main


def test_init_writes_the_files_of_the_checkout_and_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["init", str(tmp_path)]) == 0
    written = contents(tmp_path)
    assert written.pop("notes.txt") == b"mine"
    expected = {name: (REPOSITORY / name).read_bytes() for name in project_files(REPOSITORY)}
    assert written == expected
    assert {"launch/pretrain.py", "launch/slurm/pretrain.sbatch"} <= set(written)
    assert {"configs/run/tiny_cpu.yaml", "configs/deepspeed/zero3.json"} <= set(written)


def test_init_again_restores_missing_files(tmp_path: Path) -> None:
    main(["init", str(tmp_path)])
    before = contents(tmp_path)
    (tmp_path / "launch" / "pretrain.py").unlink()
    assert main(["init", str(tmp_path)]) == 0
    assert contents(tmp_path) == before


def test_init_overwrites_files_that_differ_only_when_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["init", str(tmp_path)])
    shipped = contents(tmp_path)
    (tmp_path / "configs" / "run" / "demo.yaml").write_text("mine")
    (tmp_path / "launch" / "pretrain.py").unlink()
    before = contents(tmp_path)
    assert main(["init", str(tmp_path)]) == 2
    first, *parts = capsys.readouterr().err.splitlines()
    assert first == "error: files that differ would be overwritten"
    assert "configs/run/demo.yaml" in parts[0]
    assert "--force" in parts[2]
    assert contents(tmp_path) == before

    assert main(["init", str(tmp_path), "--force"]) == 0
    assert contents(tmp_path) == shipped


@pytest.mark.parametrize("blocked", ["launch", "configs/run"])
def test_a_file_in_place_of_a_folder_is_refused_even_when_forced(
    blocked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / blocked).parent.mkdir(exist_ok=True)
    (tmp_path / blocked).write_text("mine")
    assert main(["init", str(tmp_path), "--force"]) == 2
    assert f"{tmp_path / blocked} is a file" in capsys.readouterr().err
    assert contents(tmp_path) == {blocked: b"mine"}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []

    def copy(source: Path, target: Path) -> None:
        if copied:
            raise OSError(28, "No space left on device")
        copied.append(target)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("bigbird_ds.cli.init.shutil.copy", copy)
    assert main(["init", str(tmp_path)]) == 2
    assert copied
    assert list(tmp_path.iterdir()) == []
