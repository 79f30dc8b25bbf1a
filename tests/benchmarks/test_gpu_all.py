"""benchmarks/gpu_all.py runs at tiny sizes, so that it does not waste time on a GPU."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("gpu_all") / "result.json"
    script = ROOT / "benchmarks" / "gpu_all.py"
    command = [sys.executable, str(script), "--device", "cpu", "--smoke", "--json", str(path)]
    environment = {name: value for name, value in os.environ.items() if "TRITON" not in name}
    # From another folder: it must not depend on the working directory.
    ended = subprocess.run(
        command,
        cwd=path.parent,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(path.read_text())


def values(result: dict, section: str, name: str) -> dict[str, float]:
    """Unit -> value of the last record that has this name and a value."""
    return {
        record["unit"]: record["value"]
        for record in result["records"]
        if (record["section"], record["name"]) == (section, name) and record["value"] is not None
    }


def test_every_section_measures_something(result: dict) -> None:
    assert values(result, "ceilings", "copy")["TB/s"] > 0
    assert values(result, "ceilings", "matrix product bf16")["TFLOP/s"] > 0
    assert values(result, "attention", "gathered forward")["ms"] > 0
    for name in ("base ours", "large ours", "base ours, not compiled", "base ours, dense flash"):
        assert values(result, "training step", name)["tokens/s"] > 0
    assert values(result, "one long sequence", "base ours")["loss"] > 0
    assert "kB/token" in values(result, "memory", "base ours")


def test_transformers_is_measured_with_the_weights_of_ours(result: dict) -> None:
    pytest.importorskip("transformers", reason="transformers is the peer that is measured")
    assert values(result, "training step", "base transformers block_sparse")["tokens/s"] > 0
    for name in ("pegasus-large ours", "pegasus-large transformers"):
        assert values(result, "encoder-decoder", name)["tokens/s"] > 0


def test_backends_are_compared_with_the_reference(result: dict) -> None:
    checks = [r for r in result["records"] if r["section"] == "correctness"]
    for name in ("gathered", "flex"):
        compared = [r for r in checks if r["name"] == name]
        assert compared and all(r["note"] == "right" for r in compared)


def test_what_cannot_run_here_is_recorded_and_the_rest_still_runs(result: dict) -> None:
    failed = [r for r in result["records"] if r["value"] is None]
    assert failed and all("failed: " in r["note"] for r in failed)
    assert {r["name"] for r in failed} <= {
        "triton", "triton, no mask", "dense cuDNN", "flex", "base ours, dense cudnn",
        "forward", "query_gradients", "key_gradients",
    }  # fmt: skip
    triton = next(r for r in failed if r["name"] == "triton")
    assert "does not support this input" in triton["note"]


def test_a_check_without_time_is_not_wrong_and_a_kernel_that_fails_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    gpu_all = importlib.import_module("gpu_all")
    report_of = importlib.import_module("gpu.report")

    def right(name: str, value: float | None, note: str) -> bool:
        record = report_of.Record("correctness", name, "", value, "distance", note)
        return gpu_all.all_passed(report_of.Report(torch.device("cpu"), 1.0, records=[record]))

    assert right("triton", 0.0, "right") and right("triton", None, report_of.SKIPPED)
    assert right("flex", None, "failed: ImportError")
    assert not right("triton", 1.0, "WRONG") and not right("triton", None, "failed: RuntimeError")
    assert sum(seconds for seconds, _ in gpu_all.SECTIONS.values()) <= 460


def test_the_models_need_no_training_stack() -> None:
    """The GPU machine of a benchmark may have only torch, Triton and numpy."""
    absent = [
        "deepspeed",
        "pydantic",
        "safetensors",
        "transformers",
        "webdataset",
        "datasets",
        "sentencepiece",
        "tokenizers",
        "yaml",
        "tqdm",
    ]
    code = f"""
import sys
for name in {absent!r}:
    sys.modules[name] = None
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import gpu_all
from bigbird_ds import BigBirdForMaskedLM, BigBirdPegasusForConditionalGeneration
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
