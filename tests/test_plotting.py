from pathlib import Path

import pytest

from bigbird_ds.cli.main import main

PATTERN = ["attention", "--seq-len", "128", "--block-size", "8", "--heads", "1", "--out"]


def test_a_picture_is_written_in_the_format_of_its_name(tmp_path: Path) -> None:
    for name, beginning in (("a.png", b"\x89PNG"), ("new/b.SVG", b"<?xml")):
        assert main([*PATTERN, str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(beginning)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a.xyz", "unknown image format"),
        ("a", "unknown image format"),
        ("file/a.png", "cannot be written"),
    ],
)
def test_a_picture_that_cannot_be_written_is_a_user_error(
    name: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([*PATTERN, str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert problem in error and "change: --out" in error
