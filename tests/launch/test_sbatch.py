"""The job scripts for SLURM, with stubs of the cluster's commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.processes import REPOSITORY, environment, run

SCRIPTS = sorted((REPOSITORY / "launch" / "slurm").glob("*.sbatch"))
JOB = {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n1", "SLURM_CPUS_PER_TASK": "12"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_job_script_is_shell(script: Path) -> None:
    done = run("bash", "-n", script)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize(("code", "requeued"), [(75, ["scontrol requeue 17"]), (2, []), (0, [])])
def test_the_job_gives_each_rank_its_processors_and_requeues_only_on_75(
    code: int, requeued: list[str], tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    for name, result in (("srun", code), ("scontrol", 0)):
        command = tmp_path / name
        command.write_text(f'#!/bin/sh\necho "{name} $*" >> "{calls}"\nexit {result}\n')
        command.chmod(0o755)
    # No environment of the site comes before the stubs on PATH.
    path = f"{tmp_path}{os.pathsep}{environment()['PATH']}"
    done = subprocess.run(
        ["bash", str(REPOSITORY / "launch/slurm/pretrain.sbatch"), "run.yaml", "train.steps=8"],
        cwd=tmp_path,
        env=environment(**JOB, PATH=path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    step, *rest = calls.read_text().splitlines()
    assert step.startswith("srun --cpus-per-task=12 ")
    assert step.endswith(" python launch/pretrain.py run.yaml train.steps=8")
    assert rest == requeued
