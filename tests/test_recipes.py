"""The programs take the commands on the pages of recipes/. `make recipes-check` runs them."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from support.processes import REPOSITORY, run

from bigbird_ds.cli.main import command_parser
from bigbird_ds.training.config.file import load_run_config

RECIPES = REPOSITORY / "recipes"
PAGES = sorted(path.name for path in RECIPES.glob("*.md") if path.name != "README.md")


def scripts(page: str) -> list[str]:
    """All blocks of commands of a page, those that are not run too."""
    return re.findall(r"```sh\n(.*?)```", (RECIPES / page).read_text(encoding="utf-8"), re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of each command, with the defaults of variables."""
    text = "\n".join(scripts(page))
    settings = re.search(r'^settings="(.*?)"$', text, re.DOTALL | re.MULTILINE)
    if settings is not None:
        text = text.replace(settings[0], "").replace("$settings", " ".join(settings[1].split()))
    text = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", text).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def test_make_recipes_check_runs_every_page() -> None:
    spec = importlib.util.spec_from_file_location("check", RECIPES / "check.py")
    assert spec is not None and spec.loader is not None
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    assert sorted(check.PAGES) == PAGES
    index = (RECIPES / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert check.commands(RECIPES / page).strip(), page
        assert f"]({page})" in index


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_taken(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    trained = 0
    for script in scripts(page):
        assert run("bash", "-n", "-c", script).returncode == 0, script
    for words in commands(page):
        if words[0] == "bigbird-ds":
            command_parser(words[1]).parse_intermixed_args(words[2:])
        if "launch/pretrain.py" in words:
            config, *overrides = words[words.index("launch/pretrain.py") + 1 :]
            # The folder of a model is there only after the commands before it ran.
            load_run_config(config, [text for text in overrides if not text.startswith("model=")])
            trained += 1
        if "launch/genome.sh" in words:
            load_run_config("configs/run/genome_cpu.yaml", words[2:])
            trained += 1
        for word in words:
            if word.startswith("examples/"):
                _check_options(REPOSITORY / word, words)
    assert trained


def _check_options(example: Path, words: list[str]) -> None:
    """Whether the source of an example, or of what all share, names the options."""
    source = example.read_text() + (example.parent / "fine_tuning.py").read_text()
    for word in words:
        assert not word.startswith("--") or f'"{word}"' in source, word


def test_manual_pages_become_text() -> None:
    spec = importlib.util.spec_from_file_location("manual_text", RECIPES / "manual_text.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (
        '.\\" a comment\n.TH LS 1\n.SH 名前\nls \\- 一覧\n.B \\-a\nすべて\\fB表示\\fRする。\n.PP\n'
    )
    assert module.plain_text(page) == "名前\nls - 一覧\n-a\nすべて表示する。\n"
