"""Mistakes on the command line are told in four parts, with the nearest name."""

from importlib.metadata import version

import pytest

from bigbird_ds.cli.main import main


@pytest.mark.parametrize(
    ("line", "problem", "needed"),
    [
        ("", "there is no command", "one of tokenizer, shard, verify,"),
        ("tokenzier", "this is no command", "tokenizer (the nearest)"),
        ("tokenzier --help", "this is no command", "tokenizer (the nearest)"),
        ("tokenizer a --out b --famly=pegasus", "unknown option", "--family (the nearest)"),
        ("plan a.yaml --steps 5", "unknown option", "go without dashes, as train.steps=100"),
        ("export run out more", "there is an argument too many", "bigbird-ds export [-h]"),
        ("shard a --out b", "the command line is wrong", "--tokenizer DIR"),
        ("export run out --dtype half", "the command line is wrong", "{float32,bfloat16,float16}"),
    ],
)
def test_a_wrong_command_line_is_told_in_four_parts(
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
    assert "no file no.yaml" in capsys.readouterr().err
    assert main(["tokenizer", "a", "--vocab-size", "500", "b", "--out", "c"]) == 2
    assert "'a' names nothing" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"bigbird-ds {version('bigbird-ds')}\n"


@pytest.mark.parametrize("line", ["--help", "shard --help"])
def test_help_is_no_mistake(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: bigbird-ds")
