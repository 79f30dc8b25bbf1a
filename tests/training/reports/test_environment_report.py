"""What ``bigbird-ds doctor`` says of packages, devices and compilers, with faults injected."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.processes import run

from bigbird_ds.cli.main import main
from bigbird_ds.training.reports import environment_report
from bigbird_ds.training.reports.environment_report import (
    compiler_entries,
    device_entries,
    examine,
    package_entries,
)
from bigbird_ds.training.reports.host_report import Entry

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
from bigbird_ds.cli.main import main
sys.exit(main(["doctor", "--json", "--folder", sys.argv[2]]))
"""


def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries}


@pytest.fixture
def without_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time, and one test below runs."""
    monkeypatch.setattr(environment_report, "_IMPORTS", "")


@pytest.mark.usefixtures("without_imports")
def test_a_cpu_run_can_start_here_and_nothing_is_left_in_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"torch          {torch.__version__}" in out
    assert "auto takes" in out
    assert "A run on CPUs can start here" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("absent", "code"),
    [
        ("transformers,matplotlib,triton,packaging", 0),
        ("torch,deepspeed,pydantic,numpy,yaml", 1),
    ],
)
def test_missing_packages_are_reported_without_them(absent: str, code: int, tmp_path: Path) -> None:
    done = run(sys.executable, "-c", WITHOUT, absent, tmp_path)
    assert done.returncode == code, done.stderr
    report = json.loads(done.stdout)
    assert report["cpu_run_can_start"] is (code == 0)
    missing = {e["name"]: e for e in report["entries"] if e["found"] == "not installed"}
    distributions = set(absent.replace("yaml", "PyYAML").split(","))
    assert missing.keys() == distributions - {"packaging"}
    for name, entry in missing.items():
        assert entry["stops"] is (code == 1)
        assert entry["needed_for"]
        assert entry["remedy"].startswith(f"pip install '{name}")
    assert any(entry["name"] == "file locks" for entry in report["entries"])


def test_a_version_out_of_range_and_an_import_that_fails_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.1" if name == "numpy" else version(name)
    )
    monkeypatch.setattr(environment_report, "_IMPORTS", "raise OSError('libcudart.so is missing')")
    found = by_name(list(package_entries()))
    assert found["numpy"].found == "0.1"
    assert found["numpy"].remedy == "pip install 'numpy>=2.0' (tested range)"
    assert not found["pydantic"].remedy
    assert found["imports"].stops
    assert found["imports"].found == "fails: OSError: libcudart.so is missing"


def test_imports_that_take_long_are_reported_and_stop_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def endless(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", endless)
    entry = by_name(list(package_entries()))["imports"]
    assert entry.found == "not finished after 8 s"
    assert entry.remedy and not entry.stops


def test_missing_compilers_and_headers_say_what_needs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    found = by_name(list(compiler_entries()))
    assert found["C compiler"].found == "none of no-such-compiler, gcc, clang"
    assert "Triton" in found["C compiler"].needed_for
    assert found["C++ compiler"].needed_for == "train.compile"
    assert found["C++ compiler"].remedy == "apt install g++, or set CXX"
    assert found["Python.h"].remedy.startswith("apt install python3-dev")
    assert not any(entry.stops for entry in found.values())


def test_gpus_are_listed_with_memory_and_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="NVIDIA H100", total_memory=80 << 30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (78 << 30, 80 << 30))
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    found = by_name(list(device_entries()))
    assert found["GPU 0"].found.startswith("NVIDIA H100, 80 GiB (78 free), compute capability 9.0")
    assert found["NCCL"].needed_for == "several GPUs"
    assert found["CPU cores"].found.startswith(f"{len(os.sched_getaffinity(0))} of")


@pytest.mark.usefixtures("without_imports")
def test_a_check_that_fails_is_an_entry_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> bool:
        raise RuntimeError("CUDA error\nthe driver is gone")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    found = by_name(examine(tmp_path))
    assert found["devices"].found == "not checked, RuntimeError: the driver is gone"
    assert found["attention"].remedy
    assert "free space" in found
