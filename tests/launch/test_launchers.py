"""``launch/pretrain.py`` under each launcher: the same losses, the right exit codes."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from support.processes import PRETRAIN, free_port, run, start, start_two_slurm_ranks, wait_for
from support.runs import losses, metrics

pytestmark = pytest.mark.launch


@pytest.fixture
def expected(run_settings: dict[str, Any], run_config_file: Path, tmp_path: Path) -> list[float]:
    """The losses under plain ``python``."""
    output = tmp_path / "plain"
    done = run(sys.executable, PRETRAIN, run_config_file, f"output={output}")
    assert done.returncode == 0, done.stderr
    return losses(metrics({"output": output}))


def test_deepspeed_torchrun_and_slurm_ranks_train_the_same_run(
    run_config_file: Path, tmp_path: Path, expected: list[float]
) -> None:
    deepspeed = ["deepspeed", "--num_gpus", 2, "--master_port", free_port(20000)]
    torchrun = ["torchrun", "--nproc_per_node", 2, "--master_port", free_port(21000)]
    for name, launcher in (("deepspeed", deepspeed), ("torchrun", torchrun)):
        output = tmp_path / name
        done = run(*launcher, PRETRAIN, run_config_file, f"output={output}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert losses(metrics({"output": output})) == pytest.approx(expected, rel=1e-4), name

    output = tmp_path / "slurm"
    _, tasks = start_two_slurm_ranks(tmp_path, run_config_file, f"output={output}")
    assert [task.wait(timeout=300) for task in tasks] == [0, 0]
    assert losses(metrics({"output": output})) == pytest.approx(expected, rel=1e-4)


def test_a_signal_to_one_rank_saves_and_stops_all_and_the_same_command_resumes(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    steps = 400
    run_settings["train"].update(steps=steps, log_every=1)
    config = tmp_path / "long.yaml"
    config.write_text(json.dumps(run_settings))
    logs, tasks = start_two_slurm_ranks(tmp_path, config)
    wait_for(logs[0], "step 3/", *tasks)
    tasks[1].send_signal(signal.SIGUSR1)
    assert [task.wait(timeout=300) for task in tasks] == [75, 75], logs[0].read_text()

    lines = metrics(run_settings)
    stopped = lines[-1]["step"]
    assert 3 <= stopped < steps
    checkpoint = Path(run_settings["output"]) / "checkpoints" / f"step-{stopped}"
    assert json.loads((checkpoint / "state.json").read_text())["step"] == stopped

    done = run(
        sys.executable,
        PRETRAIN,
        config,
        f"train.steps={stopped + 2}",
        f"schedule.total_steps={steps}",
    )
    assert done.returncode == 0, done.stderr
    assert f"step-{stopped} (step {stopped})" in done.stderr
    assert [line["step"] for line in metrics(run_settings)] == list(range(1, stopped + 3))


def test_a_killed_run_resumes_from_its_last_checkpoint_with_the_same_losses(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    run_settings["train"].update(steps=60, log_every=1, save_every=5)
    config = tmp_path / "killed.yaml"
    config.write_text(json.dumps(run_settings))
    whole = run(sys.executable, PRETRAIN, config, f"output={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr

    log = tmp_path / "killed.log"
    process = start(log, sys.executable, PRETRAIN, config)
    wait_for(log, "step 12/", process)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL

    again = run(sys.executable, PRETRAIN, config)
    assert again.returncode == 0, again.stderr
    assert "resume: from" in again.stderr
    lines, expected = metrics(run_settings), metrics({"output": tmp_path / "whole"})
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    assert losses(lines) == pytest.approx(losses(expected), rel=1e-6)


def test_a_rank_that_dies_ends_the_others_with_an_error(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    run_settings["train"].update(steps=1000, log_every=1)
    run_settings["parallel"] = {"sequence": 2}
    config = tmp_path / "dies.yaml"
    config.write_text(json.dumps(run_settings))
    logs, tasks = start_two_slurm_ranks(tmp_path, config)
    wait_for(logs[0], "step 3/", *tasks)
    tasks[1].kill()
    assert tasks[0].wait(timeout=120) == 1
    assert "onnection" in logs[0].read_text()  # gloo reports it as closed or reset


def test_a_user_error_is_printed_once_in_four_parts_with_exit_code_2(
    run_config_file: Path, tmp_path: Path
) -> None:
    command = ["deepspeed", "--num_gpus", 2, "--master_port", free_port(20000), PRETRAIN]
    done = run(*command, run_config_file, "batch.sequences=5", f"output={tmp_path / 'none'}")
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr.count(
            "error: the global batch does not divide into micro-batches of the ranks\n  seen:"
        )
        == 1
    )
    assert "change: batch.sequences or batch.micro" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()

    done = run(sys.executable, PRETRAIN, run_config_file, "batch.sequnces=8")
    assert done.returncode == 2
    assert "batch.sequences (closest match)" in done.stderr


def test_print_config_shows_the_resolved_config_and_trains_nothing(
    run_config_file: Path, run_settings: dict[str, Any]
) -> None:
    done = run(sys.executable, PRETRAIN, run_config_file, "optimizer.lr=0.5", "--print-config")
    assert done.returncode == 0, done.stderr
    assert "lr: 0.5" in done.stdout
    assert not Path(run_settings["output"]).exists()

    refused = run(sys.executable, PRETRAIN, run_config_file, "model.hiden_size=8", "--print-config")
    assert refused.returncode == 2
    assert "hidden_size" in refused.stderr and not refused.stdout
