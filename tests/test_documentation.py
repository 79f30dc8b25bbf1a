"""The documentation matches the program: commands run, pages are current, files load."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support.processes import REPOSITORY, run

from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.training.config.reference import config_reference
from bigbird_ds.training.deepspeed.config import deepspeed_config

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
RUN_CONFIGS = sorted((REPOSITORY / "configs" / "run").glob("*.yaml"))
DEEPSPEED_CONFIGS = sorted((REPOSITORY / "configs" / "deepspeed").glob("*.json"))


@pytest.mark.launch
def test_the_readmes_commands_bring_documents_to_a_model_that_transformers_loads(
    tmp_path: Path,
) -> None:
    match = re.search(
        r"<!-- run by tests/test_documentation.py -->\n```sh\n(.*?)```", README, re.DOTALL
    )
    assert match is not None
    for name in ("launch", "configs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    script = tmp_path / "commands.sh"
    script.write_text("set -euo pipefail\ncd " + str(tmp_path) + "\n" + match[1])
    done = run("bash", script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is intact" in done.stdout
    assert "step 15/15" in done.stderr + done.stdout
    assert "learning rate of the next step" not in done.stderr + done.stdout
    assert "checked: transformers" in done.stdout
    for picture in ("work/run/curves.png", "work/attention.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")

    transformers = pytest.importorskip("transformers", reason="the README loads with transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "work" / "export")
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "work" / "export")
    inputs = tokenizer("Return the [MASK] of the string.", return_tensors="pt")
    assert tokenizer.mask_token_id in inputs["input_ids"]
    assert model(**inputs).logits.shape[-1] == model.config.vocab_size


@pytest.mark.parametrize("path", RUN_CONFIGS, ids=lambda path: path.name)
def test_every_run_config_loads_and_its_batch_divides_over_its_ranks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    config = load_run_config(path)
    ranks = {
        "bigbird_base.yaml": 8,
        "bigbird_large.yaml": 64,
        "bigbird_pegasus_large.yaml": 16,
        "demo.yaml": 2,
        "demo_pegasus.yaml": 2,
    }.get(path.name, 1)
    assert config.accumulation(ranks) >= 1
    assert config.data.sequence_length % config.model["block_size"] == 0


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("path", DEEPSPEED_CONFIGS, ids=lambda path: path.name)
def test_every_deepspeed_config_is_taken_in_bf16_and_fp32(
    path: Path, bf16: bool, run_config_file: Path
) -> None:
    overrides = [f"deepspeed={path}", f"deepspeed.bf16.enabled={json.dumps(bf16)}"]
    config = load_run_config(run_config_file, overrides)
    made = deepspeed_config(config, world_size=2)
    assert made["bf16"]["enabled"] is bf16
    assert made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"] * 2 == 4


def test_the_config_page_lists_every_key_as_it_is() -> None:
    page = (REPOSITORY / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == config_reference(), "run: make docs"


def test_the_files_that_the_readme_and_docs_name_exist() -> None:
    texts = [README] + [path.read_text() for path in (REPOSITORY / "docs").glob("*.md")]
    paths = set()
    for text in texts:
        folders = "tests|launch|docs|docker|configs|bigbird_ds|data_prep"
        paths |= set(re.findall(rf"(?<!/opt/)(?:{folders})/[\w./-]+", text))
    missing = sorted(
        path for path in paths if not (REPOSITORY / path.rstrip("./")).exists() and "N" not in path
    )
    assert missing == []


def test_shell_scripts_are_valid_bash() -> None:
    for path in (*sorted((REPOSITORY / "launch").rglob("*.s*")), REPOSITORY / "docker" / "sshd.sh"):
        assert run("bash", "-n", path).returncode == 0, path
