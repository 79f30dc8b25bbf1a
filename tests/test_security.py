"""Guarantees of SECURITY.md that no other test covers."""

from __future__ import annotations

import ast
import json
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.distributed import run_distributed
from support.listening import listening_addresses
from support.processes import REPOSITORY, run
from support.tiny_models import tiny_bigbird

from bigbird_ds import BigBirdModel
from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import load_run_config


@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir", "python/name:os.mkdir"])
def test_a_run_config_cannot_call_python(tag: str, tmp_path: Path) -> None:
    target, config = tmp_path / "made", tmp_path / "run.yaml"
    config.write_text(f"model: !!{tag} [{target}]\n")
    with pytest.raises(ConfigError):
        load_run_config(config)
    assert not target.exists()


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    BigBirdModel(tiny_bigbird()).save_pretrained(tmp_path)
    target = tmp_path / "made"
    (tmp_path / "modeling.py").write_text(f"import os\nos.mkdir({str(target)!r})\n")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {"auto_map": {"AutoModel": "modeling.Model"}}
    path.write_text(json.dumps(config))
    BigBirdModel.from_pretrained(tmp_path)
    assert not target.exists()


FORBIDDEN = re.compile(
    r"(?:c?[pP]ickle|dill|joblib|marshal|shelve)\.\w+|yaml\.(?:load|load_all|full_load|unsafe_load)"
    r"|eval|exec|os\.(?:system|popen)|tempfile\.(?:mktemp|gettempdir)"
)
FORBIDDEN_ARGUMENTS = {"shell", "allow_pickle", "trust_remote_code", "use_auth_token"}


def unsafe_calls(text: str) -> Iterator[str]:
    """Calls in Python code that read pickles, unsafe YAML or remote code, or run text as code."""
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        options = {each.arg: ast.unparse(each.value) for each in call.keywords}
        is_unsafe = (
            FORBIDDEN.fullmatch(name) is not None
            or any(options.get(argument, "False") != "False" for argument in FORBIDDEN_ARGUMENTS)
            or (name == "torch.load" and options.get("weights_only") != "True")
        )
        if is_unsafe:
            yield f"line {call.lineno}: {ast.unparse(call)}"


def test_no_module_reads_pickles_unsafe_yaml_or_remote_code_or_runs_text() -> None:
    paths = [
        path
        for folder in ("bigbird_ds", "data_prep", "launch", "examples")
        for path in (REPOSITORY / folder).rglob("*.py")
    ]
    found = {str(path): list(unsafe_calls(path.read_text(encoding="utf-8"))) for path in paths}
    assert len(paths) > 100 and not {path: calls for path, calls in found.items() if calls}
    for code in (
        "pickle.loads(x)",
        "yaml.load(x, Loader=yaml.Loader)",
        "torch.load(x)",
        "np.load(x, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "eval(x)",
    ):
        assert list(unsafe_calls(code)), code


@pytest.mark.launch
def test_a_run_on_one_host_listens_on_the_loopback_interface_only(tmp_path: Path) -> None:
    first, other = run_distributed(listening_addresses, 2)
    assert first == other == ["127.0.0.1"]


def test_the_store_listens_on_the_address_of_the_master_and_on_no_other() -> None:
    """As on several hosts, where gloo and NCCL use the interface of the route to it."""
    script = (
        "from datetime import timedelta\n"
        "from bigbird_ds.training.ranks import rendezvous\n"
        "from support.listening import listening_addresses\n"
        "from support.processes import free_port\n"
        "import os\n"
        "os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port(25000)))\n"
        "waiting = rendezvous._Waiting(0, 2, timedelta(seconds=5), lambda: False)\n"
        "store = rendezvous._connect(0, 2, waiting)\n"
        "print(listening_addresses())\n"
    )
    tests = str(REPOSITORY / "tests")
    done = run(sys.executable, "-c", f"import sys; sys.path.append({tests!r})\n{script}")
    assert done.stdout == "['127.0.0.1']\n", done.stderr


def test_temporary_folders_outside_of_the_output_are_private(tmp_path: Path) -> None:
    """They are made by ``tempfile``, whose folders only their owner may enter."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
    paths = [
        path
        for folder in ("bigbird_ds", "data_prep", "launch")
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".py", ".sh", ".sbatch")
    ]
    named = [str(path) for path in paths if re.search(r"/tmp\b|/var/tmp", path.read_text())]
    assert len(paths) > 100 and named == []
