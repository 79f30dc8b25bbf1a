"""The job scripts for SLURM, with stubs of the cluster's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.processes import REPOSITORY, environment, run

FOLDER = REPOSITORY / "launch" / "slurm"
SCRIPTS = sorted([*FOLDER.glob("*.sbatch"), *FOLDER.glob("*.sh")])
JOB = {
    "SLURM_JOB_ID": "17",
    "SLURM_NNODES": "2",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_CPUS_ON_NODE": "96",
    "REPOSITORY": str(REPOSITORY),
}
ARRAY = {"SLURM_ARRAY_TASK_STEP": "1", "PARTS": "3"}


class Stubs:
    """Stubs of the cluster's commands and of python in ``folder``; what they were called with.

    ``srun`` saves the steps, and exits with the code, that files in the folder name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment_folder = folder / "environment" / "bin"
        environment_folder.mkdir(parents=True)
        self._write(
            folder / "srun",
            'for step in $(cat steps); do mkdir -p "run/checkpoints/$step"; done\nexit $(cat code)',
        )
        self._write(folder / "scontrol", "true")
        ends = 'case "$*" in *%e*) echo ${END:-N/A} ;; *) echo ${LIMIT:-1-00:00:00} ;; esac'
        self._write(folder / "squeue", ends)
        self._write(environment_folder / "python", "echo 'output: run  # command line'")
        self._write(environment_folder / "bigbird-ds", "exit $(cat code)")

    def _write(self, path: Path, script: str) -> None:
        calls = self.folder / "calls"
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> "{calls}"\n{script}\n')
        path.chmod(0o755)

    def start(
        self, script: str, *words: str, code: int = 0, steps: str = "", **variables: str
    ) -> subprocess.Popen[str]:
        """Start a job script."""
        (self.folder / "calls").unlink(missing_ok=True)
        (self.folder / "code").write_text(str(code))
        (self.folder / "steps").write_text(steps)
        # No environment of the site comes before the stubs on PATH.
        path = f"{self.folder}{os.pathsep}{environment()['PATH']}"
        own = JOB | {"VENV": str(self.folder / "environment"), "PATH": path}
        return subprocess.Popen(
            ["bash", str(FOLDER / script), *words],
            cwd=self.folder,
            env=environment(**(own | variables)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(
        self, process: subprocess.Popen[str]
    ) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """A job script's end, and the calls of stubs except ``squeue``."""
        out, errors = process.communicate(timeout=60)
        done = subprocess.CompletedProcess(process.args, process.returncode, out, errors)
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return done, [line for line in lines if not line.startswith("squeue")]

    def run(
        self, script: str, *words: str, **settings: Any
    ) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """Run a job script to its end; as ``start`` and ``finish``."""
        return self.finish(self.start(script, *words, **settings))

    def wait_when_called(self, name: str, on_signal: str) -> None:
        """Let a stub run until it is signalled, then do ``on_signal``; it says when it runs."""
        script = f"trap '{on_signal}' TERM\ntouch runs\nwhile [ ! -e ends ]; do sleep 0.05; done\n"
        self._write(self.folder / name, f"{script}exit $(cat code)")


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_job_script_is_shell(script: Path) -> None:
    done = run("bash", "-n", script)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("script", ["pretrain.sbatch", "shard.sbatch"])
def test_all_options_come_before_the_first_command_as_slurm_reads_no_further(script: str) -> None:
    lines = (FOLDER / script).read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line and line[0] != "#")
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(options) > 5 and max(options) < first


def test_the_job_starts_a_rank_per_gpu_with_its_share_of_the_processors(stubs: Stubs) -> None:
    done, calls = stubs.run("pretrain.sbatch", "run.yaml", "train.steps=8")
    assert done.returncode == 0, done.stderr
    program = f"{REPOSITORY}/launch/pretrain.py run.yaml train.steps=8"
    assert calls[0] == f"python {program} --print-config"
    assert calls[1].startswith("srun --ntasks=16 --ntasks-per-node=8 --cpus-per-task=12 ")
    assert calls[1].endswith(f" python {program}") and len(calls) == 2

    _, calls = stubs.run("pretrain.sbatch", "run.yaml", SLURM_NTASKS="4", SLURM_CPUS_PER_TASK="5")
    assert calls[1].startswith("srun --ntasks=4 --ntasks-per-node=2 --cpus-per-task=5 ")


def test_the_ranks_know_the_end_of_the_job_as_it_is_when_they_start(stubs: Stubs) -> None:
    """Preemption moves it, and signals only ranks that have started."""
    stubs._write(stubs.folder / "srun", 'echo "end: ${SLURM_JOB_END_TIME:-unknown}"')
    for end, seen in (("2026-11-30T21:17:45", "1796073465"), ("N/A", "unknown"), ("", "unknown")):
        done, _ = stubs.run("pretrain.sbatch", "run.yaml", END=end, TZ="UTC")
        assert f"end: {seen}\n" in done.stdout, done.stderr


def test_a_crash_is_requeued_while_steps_are_saved_and_a_user_error_never(stubs: Stubs) -> None:
    requeued = "scontrol requeue 17"
    for code, steps in ((75, "step-5"), (137, "step-5 step-10"), (1, "step-20")):
        done, calls = stubs.run("pretrain.sbatch", "run.yaml", code=code, steps=steps)
        assert done.returncode == code and calls[-1] == requeued
        assert "saved since the last start" in done.stdout
    done, calls = stubs.run("pretrain.sbatch", "run.yaml", code=2, steps="step-25")
    assert done.returncode == 2 and requeued not in calls


@pytest.mark.parametrize("code", [75, 1])
def test_three_lives_in_a_row_without_a_new_step_end_the_job(stubs: Stubs, code: int) -> None:
    def life(steps: str) -> tuple[bool, str]:
        done, calls = stubs.run("pretrain.sbatch", "run.yaml", code=code, steps=steps)
        return calls[-1] == "scontrol requeue 17", done.stdout

    assert life("")[0] and life("")[0]
    assert life("step-5")[0]  # begins the count again
    assert life("step-5")[0]
    is_requeued, text = life("step-5")
    assert is_requeued and "1 more such lives end the job" in text
    is_requeued, text = life("step-5")
    assert not is_requeued and "3 lives in a row saved no new step" in text


def test_a_time_limit_within_that_of_the_signal_is_an_error(stubs: Stubs) -> None:
    for limit in ("5:00", "0:05:00", "0-0:05:00"):
        done, calls = stubs.run("pretrain.sbatch", "run.yaml", LIMIT=limit)
        assert done.returncode == 2 and not calls
        assert "the time limit is 300 s, and the signal to save comes 300 s" in done.stderr
    for limit in ("UNLIMITED", "5:01", "1-12", "30:00:00"):
        assert stubs.run("pretrain.sbatch", "run.yaml", LIMIT=limit)[0].returncode == 0, limit


def test_a_missing_environment_is_an_error_and_a_relative_one_starts_at_the_repository(
    stubs: Stubs,
) -> None:
    for script in ("pretrain.sbatch", "shard.sbatch"):
        done, calls = stubs.run(script, "run.yaml", VENV="no-such-folder")
        assert done.returncode == 2 and not calls
        assert f"no virtual environment at {REPOSITORY}/no-such-folder" in done.stderr


@pytest.mark.parametrize(
    ("array", "task", "part"),
    [
        ({"COUNT": "3", "MIN": "1"}, "3", "3/3"),  # 1-3
        ({"COUNT": "3", "MIN": "0", "STEP": "2"}, "4", "3/3"),  # 0-4:2
        ({"COUNT": "1", "MIN": "2", "FIRST": "1"}, "2", "2/3"),  # the second of 1-3 again
        ({"COUNT": "1", "MIN": "4", "FIRST": "0", "EVERY": "2"}, "4", "3/3"),
    ],
)
def test_the_part_of_a_task_follows_from_the_whole_array(
    stubs: Stubs, array: dict[str, str], task: str, part: str
) -> None:
    variables = array_variables(array) | {"SLURM_ARRAY_TASK_ID": task}
    done, calls = stubs.run("shard.sbatch", "in", "--out", "out", **variables)
    assert done.returncode == 0, done.stderr
    assert calls == [f"bigbird-ds shard in --out out --workers 1 --resume --part {part}"]


@pytest.mark.parametrize(
    ("array", "task"),
    [
        ({"COUNT": "1", "MIN": "0"}, "0"),  # --array=0 of three parts
        ({"COUNT": "2", "MIN": "0"}, "1"),
        ({"COUNT": "1", "MIN": "4", "FIRST": "1"}, "4"),
        ({"COUNT": "1", "MIN": "2", "FIRST": "1", "EVERY": "2"}, "2"),
        ({"COUNT": "3", "MIN": "0"}, "5"),  # 0,1,5
    ],
)
def test_a_task_that_has_no_part_writes_nothing(
    stubs: Stubs, array: dict[str, str], task: str
) -> None:
    variables = array_variables(array) | {"SLURM_ARRAY_TASK_ID": task}
    done, calls = stubs.run("shard.sbatch", "in", **variables)
    assert done.returncode == 2 and not calls and "set PARTS" in done.stderr


def test_a_shard_task_that_was_stopped_is_requeued_and_one_that_failed_is_not(
    stubs: Stubs,
) -> None:
    variables = array_variables({"COUNT": "3", "MIN": "0"}) | {"SLURM_ARRAY_TASK_ID": "0"}
    variables |= {"SLURM_ARRAY_JOB_ID": "17"}
    for code, requeued in ((75, True), (1, False)):
        done, calls = stubs.run("shard.sbatch", "in", code=code, **variables)
        # Not job 17, which is the last task and, to scontrol, the whole array.
        assert done.returncode == code and ("scontrol requeue 17_0" in calls) == requeued


def array_variables(array: dict[str, str]) -> dict[str, str]:
    """SLURM's variables of an array; FIRST and EVERY are the user's FIRST and STEP."""
    own = {"FIRST": "FIRST", "EVERY": "STEP"}
    return ARRAY | {
        own.get(name, f"SLURM_ARRAY_TASK_{name}"): value for name, value in array.items()
    }


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_shell_is_passed_on_to_the_shard_command_alone(
    number: signal.Signals, stubs: Stubs
) -> None:
    """The ranks of a pretraining get it from SLURM; the shell waits for their save."""
    variables = array_variables({"COUNT": "3", "MIN": "0"}) | {"SLURM_ARRAY_TASK_ID": "0"}
    stubs.wait_when_called("environment/bin/bigbird-ds", "exit 75")
    process = stubs.start("shard.sbatch", "in", **variables)
    wait_for(stubs.folder / "runs")
    process.send_signal(number)
    done, calls = stubs.finish(process)
    assert done.returncode == 75 and calls[-1] == "scontrol requeue 17"

    (stubs.folder / "runs").unlink()
    stubs.wait_when_called("srun", "exit 1")
    process = stubs.start("pretrain.sbatch", "run.yaml", code=75)
    wait_for(stubs.folder / "runs")
    process.send_signal(number)
    (stubs.folder / "ends").touch()
    done, calls = stubs.finish(process)
    assert done.returncode == 75 and calls[-1] == "scontrol requeue 17"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)
