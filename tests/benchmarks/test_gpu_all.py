"""benchmarks/gpu_all.py runs at tiny sizes, so that it does not waste time on a GPU."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("gpu_all") / "result.json"
    script = ROOT / "benchmarks" / "gpu_all.py"
    # Time enough for any machine: what is skipped for time would be missed here.
    command = [sys.executable, str(script), "--device", "cpu", "--smoke", "--seconds", "3600"]
    environment = {name: value for name, value in os.environ.items() if "TRITON" not in name}
    # From another folder: it must not depend on the working directory.
    ended = subprocess.run(
        [*command, "--json", str(path)],
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


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


def test_every_section_measures_something(result: dict) -> None:
    assert values(result, "ceilings", "copy")["TB/s"] > 0
    assert values(result, "ceilings", "reads from the L2 cache")["TB/s"] > 0
    assert values(result, "ceilings", "matrix product bf16")["TFLOP/s"] > 0
    assert values(result, "compiling", "triton")["s"] > 0
    for name in ("gathered", "triton", "triton, no mask"):
        assert set(values(result, "attention", f"{name} forward")) == {
            "ms", "TFLOP/s useful", "ms of the host",
        }  # fmt: skip
    assert values(result, "flex autotuned", "triton backward")["ms of the host"]
    for name in ("forward", "query_gradients", "key_gradients"):
        assert "ms" in values(result, "sweep", name)
    for name in ("triton fp32", "gathered fp32"):
        assert values(result, "fp32", name)["distance"] < 1e-5
    for name in ("base ours", "large ours", "base ours, not compiled", "base dense flash"):
        assert values(result, "training step", name)["tokens/s"] > 0
    assert values(result, "one long sequence", "base ours")["loss"] > 0
    assert "kB/token" in values(result, "memory", "base ours, checkpointing")


def test_the_summary_has_every_goal_and_no_verdict_where_nothing_was_measured(result: dict) -> None:
    verdicts = {goal["what"]: goal["verdict"] for goal in result["goals"]}
    assert len(verdicts) == 11  # some differ only in their length, and there is one length here
    for what, verdict in verdicts.items():
        assert (verdict == "not measured") == ("FlexAttention" in what)  # it needs a GPU
    assert verdicts["attention forward with mask"] == "missed"
    assert verdicts["one sequence of 512 tokens, finite losses"] == "met"


def test_transformers_is_measured_with_the_weights_of_ours(result: dict) -> None:
    pytest.importorskip("transformers", reason="transformers is the measured baseline")
    assert values(result, "training step", "base transformers block_sparse")["tokens/s"] > 0
    for name in ("pegasus-large ours", "pegasus-large transformers"):
        assert values(result, "encoder-decoder", name)["tokens/s"] > 0


def test_backends_are_compared_with_the_reference(result: dict) -> None:
    checks = [r for r in result["records"] if r["section"] == "correctness"]
    for name in ("triton", "gathered", "flex"):
        compared = [r for r in checks if r["name"] == name]
        assert compared and all(r["note"] == "right" for r in compared)


def test_what_cannot_run_here_is_recorded_and_the_rest_still_runs(result: dict) -> None:
    failed = [r for r in result["records"] if r["value"] is None]
    assert failed and all("failed: " in r["note"] for r in failed)
    assert {r["name"] for r in failed} == {
        "dense cuDNN", "flex", "flex autotuned", "base dense cudnn"
    }  # fmt: skip


def test_a_check_without_time_is_not_wrong_and_a_kernel_that_fails_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu_all, report = module("gpu_all", monkeypatch), module("gpu.report", monkeypatch)

    def right(name: str, value: float | None, note: str) -> bool:
        return gpu_all.all_right([report.Record("correctness", name, "", value, "distance", note)])

    assert right("triton", 0.0, "right") and right("triton", None, report.SKIPPED)
    assert right("flex", None, "failed: ImportError") and right("section", None, report.SKIPPED)
    assert not right("triton", 1.0, "WRONG") and not right("triton", None, "failed: RuntimeError")
    assert not right("section", None, "failed: ended by SIGSEGV")
    assert not right("triton", 0.0, "right, other bits the second time")
    assert right("gathered", 0.0, "right, other bits the second time")  # it has atomics on a GPU


def test_a_result_that_is_nan_in_one_place_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, torch = module("gpu.attention", monkeypatch), module("torch", monkeypatch)
    zeros, ones = torch.zeros(3), torch.ones(3)
    assert attention._worst([ones.double(), zeros], [ones.double(), zeros.double()]) == 0
    for found in ([ones, zeros / 0], [zeros / 0, zeros]):
        assert not attention._worst(found, [ones.double(), zeros.double()]) < 1e9


def test_the_budgets_end_within_eight_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_all = module("gpu_all", monkeypatch)
    assert sum(section.seconds for section in gpu_all.SECTIONS.values()) <= gpu_all.SECONDS < 480
    ends = gpu_all.deadlines(["correctness", "sweep"], began=10.0, seconds=100.0)
    assert [name for name, _ in ends] == ["correctness", "sweep"]
    assert 10 < ends[0][1] < ends[1][1] == pytest.approx(110)


def test_a_section_that_crashes_or_hangs_keeps_what_it_sent_and_costs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes, now = module("gpu.processes", monkeypatch), time.perf_counter()
    monkeypatch.setattr(processes, "GRACE", 0.0)

    def ends(work, deadline: float) -> tuple[str, list]:
        received: list = []
        return processes.Running(work, {"SEEN_THERE": "1"}).follow(deadline, received.append), [
            *received
        ]

    def crash(send) -> None:
        send("first")
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(send) -> None:
        send("first")
        subprocess.run(["sleep", "1000"])

    assert ends(lambda send: send(os.environ["SEEN_THERE"]), now + 600) == ("", ["1"])
    assert "SEEN_THERE" not in os.environ
    assert ends(crash, now + 600) == ("ended by SIGKILL", ["first"])
    assert ends(lambda send: 1 / 0, now + 600) == ("ended with 1", [])
    late, received = ends(hang, time.perf_counter() + 3)
    assert late == processes.LATE and received in ([], ["first"])


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
