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


def test_what_is_not_drawn_and_what_a_model_does_not_compute_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "a.png")
    short = ["attention", "--seq-len", "64", "--block-size", "8", "--heads", "6", "--out", target]
    assert main(short) == 0
    said = capsys.readouterr().out
    assert "full attention up to 88 tokens" in said
    assert "drew the first 4 of 6 heads" in said
    assert main([*PATTERN, target]) == 0
    assert capsys.readouterr().out == f"wrote {target}\n"


def test_the_reach_is_printed_by_style_and_drawn_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["attention", "--seq-len", "4096", "--reach"]
    assert main([*words, "--layers", "3"]) == 0
    title, layers, *styles = capsys.readouterr().out.splitlines()
    assert "4,096 tokens in 64 blocks of 64" in title
    assert layers.split() == ["layers", "1", "2", "3"]
    assert [line.split() for line in styles] == [
        ["hf", "0.23", "0.26", "0.28"],
        ["hf_eval", "0.00", "0.00", "0.00"],
        ["google", "0.23", "0.26", "0.28"],
        ["uniform", "0.48", "1.00", "1.00"],
        ["relay", "0.61", "1.00", "1.00"],
    ]
    target = tmp_path / "reach.png"
    assert main([*words, "--style", "hf", "--eval", "--out", str(target)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[2].split()[:3] == ["hf", "0.00", "0.00"]
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ([], "--out"),
        (["--layers", "3", "--out", "a.png"], "--layers"),
        (["--reach", "--layer", "0"], "--layer"),
        (["--reach", "--layers", "0"], "--layers"),
    ],
)
def test_an_option_of_attention_without_effect_is_a_user_error(
    words: list[str], change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attention", "--seq-len", "4096", *words]) == 2
    assert f"change: {change}\n" in capsys.readouterr().err
