"""What `bigbird-ds plan` counts and prints, with and without tokenizer and shards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.corpus import TINY_MODEL
from support.processes import REPOSITORY
from support.runs import changed

from bigbird_ds import BigBirdConfig
from bigbird_ds.cli.main import main
from bigbird_ds.models.bigbird.masked_lm import BigBirdForMaskedLM
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.planning import sweep as plan_sweep
from bigbird_ds.training.planning.fit import USABLE, fit_lines, largest
from bigbird_ds.training.planning.gpus import GPU, gpu_of_option
from bigbird_ds.training.planning.memory import plan_memory
from bigbird_ds.training.planning.plan import PlanOptions

MODEL = BigBirdConfig.from_dict({**TINY_MODEL, "vocab_size": 500})
SETTINGS: dict[str, Any] = {
    "model": {},
    "data": {"train": "shards", "tokenizer": "tokenizer", "sequence_length": 64},
    "objective": {"name": "mlm"},
    "batch": {"sequences": 4, "micro": 1},
    "schedule": {"warmup_steps": 0},
    "train": {"steps": 1},
    "output": "run",
}
STAGE = "deepspeed.zero_optimization.stage"
BF16 = {"deepspeed.bf16.enabled": True}
FP32_SUMS = {"deepspeed.data_types.grad_accum_dtype": "fp32"}


@pytest.mark.parametrize(
    ("changes", "weights", "gradients", "optimizer"),
    [
        # AdamW has two moments; ZeRO and bf16 also need an fp32 copy of the weights.
        ({STAGE: 0}, 4, 4, 8),
        ({STAGE: 1}, 4, 4, 12 / 4),
        ({STAGE: 2}, 4, 4 / 4, 12 / 4),
        ({STAGE: 3}, 4 / 4, 4 / 4, 12 / 4),
        ({STAGE: 0, **BF16}, 2, 2, 12),
        ({STAGE: 1, **BF16}, 2, 2, 12 / 4),
        ({STAGE: 1, **BF16, **FP32_SUMS}, 2, 4, 12 / 4),
        ({STAGE: 3, **BF16, **FP32_SUMS}, 2 / 4, 4 / 4, 12 / 4),
    ],
    ids=str,
)
def test_bytes_of_a_parameter_on_each_of_four_ranks(
    changes: dict[str, Any], weights: float, gradients: float, optimizer: float
) -> None:
    memory = plan_memory(check_run_config(changed(SETTINGS, **changes), "test"), MODEL, 4)
    number = sum(p.numel() for p in BigBirdForMaskedLM(MODEL).parameters())
    found = (memory.weights, memory.gradients, memory.optimizer)
    expected = tuple(number * size for size in (weights, gradients, optimizer))
    assert found == pytest.approx(
        expected, abs=1
    )  # one byte, where the size is not divisible by four ranks


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: it has the shipped configs and nothing else."""
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (REPOSITORY / "configs" / "run").glob("*.yaml"))
)
def test_a_shipped_config_is_planned_before_any_tokenizer_or_shards(
    name: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", f"configs/run/{name}", "--ranks", "2", "--gpu", "h100"]) == 0
    text = capsys.readouterr().out
    assert "assumed: 50,358 pieces" in text or "assumed: 96,103 pieces" in text
    assert "assumed: enough text (there is no " in text
    assert ("--tokens N counts epochs" in text) == (name != "mixed_corpora.yaml")
    assert "fits: " in text or "does not fit: " in text
    assert "35% of the bf16 peak of 2 x h100" in text


def test_a_shipped_config_is_planned_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", str(REPOSITORY / "configs" / "run" / "tiny_cpu.yaml")]) == 0
    assert "assumed: 50,358 pieces" in capsys.readouterr().out


def test_a_plan_counts_epochs_of_the_given_tokens(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["configs/run/tiny_cpu.yaml", "--tokens", "409600", "train.steps=100"]
    assert main(["plan", *words]) == 0
    assert "about 2.00 epochs of 409,600 tokens" in capsys.readouterr().out


def test_a_run_that_does_not_fit_is_told_the_smallest_change_that_does() -> None:
    config = check_run_config(changed(SETTINGS, **{"batch.micro": 4}), "test")
    memory = plan_memory(config, MODEL, 1, on_gpu=True)
    smaller = check_run_config(changed(SETTINGS, **{"batch.micro": 1}), "test")
    needed = plan_memory(smaller, MODEL, 1, on_gpu=True).total
    assert needed < memory.total
    between = GPU("between", "", int((needed + memory.total) / 2 / USABLE), None)
    first, second = fit_lines(config, MODEL, 1, between, memory)
    assert first.startswith("does not fit: ")
    assert "with batch.micro=1:" in second and second.endswith(", fits")


def test_the_largest_micro_batch_and_length_fit_and_twice_as_much_does_not() -> None:
    long = MODEL.replace(max_position_embeddings=16_384)
    config = check_run_config(changed(SETTINGS, **{"data.sequence_length": 1024}), "test")
    memory = plan_memory(config, long, 1, on_gpu=True)
    usable = memory.total + 6 * (memory.activations + memory.temporary)
    micro, length = largest(config, long, memory, usable)

    def total(micro: int, length: int) -> int:
        run = changed(SETTINGS, **{"batch.micro": micro, "data.sequence_length": length})
        return plan_memory(check_run_config(run, "test"), long, 1, on_gpu=True).total

    assert total(micro, 1024) <= usable < total(2 * micro + 1, 1024)
    assert total(1, length) <= usable < total(1, 2 * length)


def test_zero_buckets_count_on_a_gpu_only() -> None:
    bucket = {"deepspeed.zero_optimization.reduce_bucket_size": 10_000_000}
    config = check_run_config(changed(SETTINGS, **{STAGE: 2, **bucket}), "test")
    assert plan_memory(config, MODEL, 2, on_gpu=True).buckets == 40_000_000
    assert plan_memory(config, MODEL, 2).buckets == 0
    without = check_run_config(changed(SETTINGS, **{STAGE: 0}), "test")
    assert plan_memory(without, MODEL, 2, on_gpu=True).buckets == 0


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--gpu", "h2000"], "one of h200,"),
        (["--gpu", "-4"], "one of h200,"),
        (["--mfu", "0.4"], "--gpu with the name of a GPU"),
        (["--gpu", "24", "--mfu", "0.4"], "--gpu with the name of a GPU"),
        (["--gpu", "h100", "--mfu", "1.4"], "at most 1"),
        (["--tokens", "0"], "more than 0"),
    ],
)
def test_an_option_without_meaning_is_a_user_error(
    words: list[str], needed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(REPOSITORY / "configs/run/tiny_cpu.yaml"), *words]) == 2
    assert needed in capsys.readouterr().err


def test_a_sweep_prints_and_draws_memory_by_length_and_micro_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the sweep is drawn with matplotlib")
    config = check_run_config(
        changed(SETTINGS, **{"data.sequence_length": 128, "model": {**TINY_MODEL}}), "test"
    )
    monkeypatch.setattr(plan_sweep, "FACTORS", (0.5, 1))
    monkeypatch.setattr(plan_sweep, "MICROS", (1, 2))
    target = tmp_path / "memory.png"
    rows = (
        plan_sweep.sweep(config, PlanOptions(gpu=gpu_of_option("24")), target)
        .strip()
        .splitlines()[1:-1]
    )
    assert [row.split()[0] for row in rows] == ["64", "128"]
    numbers = [[float(word) for word in row.split()[1:]] for row in rows]
    assert all(row == sorted(row) for row in numbers)
    assert target.read_bytes().startswith(b"\x89PNG")
