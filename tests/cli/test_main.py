"""Errors on the command line have four parts and suggest the closest name."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from bigbird_ds.cli.main import main
from launch.pretrain import parse_arguments


@pytest.mark.parametrize(
    ("line", "problem", "needed"),
    [
        ("", "no command given", "one of doctor, init, tokenizer, shard, verify,"),
        ("tokenzier", "unknown command", "tokenizer (closest match)"),
        ("tokenzier --help", "unknown command", "tokenizer (closest match)"),
        ("tokenizer a --out b --famly=pegasus", "unknown option", "--family (closest match)"),
        ("plan a.yaml --steps 5", "unknown option", "have no dashes, e.g. train.steps=100"),
        ("export run out more", "too many arguments", "bigbird-ds export [-h]"),
        ("shard a --out b", "invalid command line", "--tokenizer DIR"),
        ("export run out --dtype half", "invalid command line", "{float32,bfloat16,float16}"),
    ],
)
def test_an_invalid_command_line_is_a_four_part_error(
    line: str, problem: str, needed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    first, *parts = capsys.readouterr().err.splitlines()
    assert first == f"error: {problem}"
    assert [part[:10] for part in parts] == ["  seen:   ", "  needed: ", "  change: "]
    assert needed in parts[1]


def test_options_may_stand_between_positional_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "no.yaml", "--ranks", "8", "train.steps=9"]) == 2
    assert f"no file no.yaml in {Path.cwd()}\n" in capsys.readouterr().err
    assert main(["tokenizer", "a", "--vocab-size", "500", "b", "--out", "c"]) == 2
    assert "'a' matches nothing" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain.py", "--version"])
    for program in (lambda: main(["--version"]), parse_arguments):
        with pytest.raises(SystemExit) as end:
            program()
        assert end.value.code == 0
        assert capsys.readouterr().out == f"bigbird-ds {version('bigbird-ds')}\n"


def test_a_missing_folder_is_named_with_the_folder_that_its_name_is_relative_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("Text.")
    for line, seen in (
        ("shard a.txt --tokenizer tok --out s", f"no file tok/spiece.model in {tmp_path}"),
        ("merge out shards other", f"no file shards/manifest.json in {tmp_path}"),
        (f"merge out {tmp_path}/shards x", f"no file {tmp_path}/shards/manifest.json"),
        ("report run", f"no file run/config.yaml in {tmp_path}"),
    ):
        assert main(line.split()) == 2
        assert capsys.readouterr().err.splitlines()[1] == f"  seen:   {seen}", line


@pytest.mark.parametrize("line", ["--help", "shard --help"])
def test_help_is_not_an_error(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: bigbird-ds")
