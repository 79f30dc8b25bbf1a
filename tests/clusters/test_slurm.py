"""The job scripts on a real SLURM of two nodes: ``make test-slurm``.

Each node is a ``slurmd`` of Debian's slurm-wlm on this machine; the GPUs are names only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.corpus import Corpus, command
from support.processes import PRETRAIN, REPOSITORY
from support.runs import metrics
from support.slurm_cluster import Cluster, slurm_cluster, why_not

REASON = why_not()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
SCRIPTS = REPOSITORY / "launch" / "slurm"
VENV = str(Path(sys.executable).parent.parent)  # an absolute path
# Two nodes with one rank each, as on a site without GPUs.
CPUS = ("--gpus-per-node=0", "--nodes=2", "--ntasks-per-node=1", "--time=30")
STEPS = 60


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
def config(run_settings: dict[str, Any], tmp_path: Path) -> Path:
    """A run of ``STEPS`` steps that saves every third."""
    run_settings["train"].update(steps=STEPS, save_every=3)
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(run_settings))
    return path


def pretrain(slurm: Cluster, log: Path, config: Path, *options: Any, overrides: Any = ()) -> str:
    """Submit ``pretrain.sbatch`` from a folder that is not the repository; the job's id."""
    words = [*CPUS, f"--output={log}", *options, SCRIPTS / "pretrain.sbatch", config, *overrides]
    return slurm.submit(*words, cwd=log.parent, VENV=VENV)


def require_whole(slurm: Cluster, job: str, log: Path, settings: dict[str, Any]) -> dict[str, str]:
    """The job's record, once it has trained each step in order."""
    record = slurm.wait(job)
    assert record["JobState"] == "COMPLETED", f"{slurm.story(job)}\n{log.read_text()}"
    assert [line["step"] for line in metrics(settings)] == list(range(1, STEPS + 1))
    return record


def rank_of(job: str, rank: int) -> int:
    """The process of a rank of a job."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_text().split("\0")
            words = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        wanted = {f"SLURM_JOB_ID={job}", f"SLURM_PROCID={rank}", "SLURM_STEP_ID=0"}
        is_pretraining = "python" in words[0] and any(word.endswith(PRETRAIN) for word in words)
        if is_pretraining and wanted.issubset(variables):
            return int(process.name)
    raise AssertionError(f"no rank {rank} of job {job}")


def test_the_chain_goes_from_documents_to_an_export(
    slurm: Cluster, corpus: Corpus, config: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    printed = slurm.command(
        SCRIPTS / "chain.sh",
        *(corpus.documents, config, work, "train.steps=4"),
        cwd=tmp_path,
        VENV=VENV,
        PARTS="2",
        TOKENIZER="--vocab-size 500",
        SHARD="--validation-fraction 0.2 --unit-size 50KB",
        ONE_CPU="--time=10",
        SHARD_JOB="--cpus-per-task=1 --time=10",
        PRETRAIN_JOB=" ".join(CPUS),
    )
    jobs = dict(line.split(" ", 1) for line in printed.splitlines())
    record = slurm.wait(jobs["export"])
    logs = "\n".join(path.read_text() for path in (work / "logs").iterdir())
    assert record["JobState"] == "COMPLETED", logs
    assert (work / "export" / "model.safetensors").exists()
    assert [line["step"] for line in metrics({"output": work / "run"})] == [1, 2, 3, 4]


def test_the_chain_ends_with_the_first_job_that_fails(
    slurm: Cluster, corpus: Corpus, config: Path, tmp_path: Path
) -> None:
    words = [SCRIPTS / "chain.sh", corpus.documents, config, tmp_path / "work"]
    variables = {"VENV": VENV, "TOKENIZER": "--vocab-size 3", "ONE_CPU": "--time=10"}
    with pytest.raises(AssertionError, match="configuration is not available"):
        slurm.command(*words, **variables, SHARD_JOB="--cpus-per-task=500")
    assert not slurm.command("squeue", "--noheader")  # the tokenizer's job is gone too

    variables |= {"SHARD_JOB": "--cpus-per-task=1", "PRETRAIN_JOB": " ".join(CPUS)}
    printed = slurm.command(*words, **variables)
    jobs = dict(line.split(" ", 1) for line in printed.splitlines())
    assert slurm.wait(jobs["tokenizer"])["JobState"] == "FAILED"
    assert slurm.wait(jobs["export"])["JobState"] == "CANCELLED"


def test_failed_tasks_of_an_array_are_repeated_and_the_shards_are_those_of_one_job(
    slurm: Cluster, corpus: Corpus, tmp_path: Path
) -> None:
    options = [corpus.documents, "--tokenizer", corpus.tokenizer, "--unit-size", "50KB", "--out"]
    command(["shard", *options, tmp_path / "whole", "--workers", "1"])

    def shard(array: str, **variables: str) -> tuple[str, str]:
        job_options = [f"--array={array}", "--cpus-per-task=1", "--output=%A.log"]
        words = [*job_options, SCRIPTS / "shard.sbatch", *options, tmp_path / "parts"]
        job = slurm.submit(*words, cwd=tmp_path, VENV=VENV, **variables)
        states = {slurm.wait(f"{job}_{task}")["JobState"] for task in tasks_of(array)}
        return ",".join(states), (tmp_path / f"{job}.log").read_text()

    state, log = shard("0")
    assert state == "FAILED" and "set PARTS to the tasks of" in log
    state, log = shard("4", PARTS="3", FIRST="1", STEP="2")
    assert state == "FAILED" and "is none of the 3 ids from 1 in steps of 2" in log
    assert not (tmp_path / "parts").exists()

    # Of the array 1-5:2, the task 3 is missing at first.
    state, log = shard("1,5", PARTS="3", FIRST="1", STEP="2")
    assert state == "COMPLETED" and not (tmp_path / "parts" / "manifest.json").exists(), log
    state, log = shard("3", PARTS="3", FIRST="1", STEP="2")
    assert state == "COMPLETED" and "task 3: part 2/3" in log
    names = sorted(path.name for path in (tmp_path / "whole").rglob("*.tar"))
    assert names and names == sorted(path.name for path in (tmp_path / "parts").rglob("*.tar"))
    for path in (tmp_path / "whole").rglob("*.tar"):
        other = tmp_path / "parts" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes()


def tasks_of(array: str) -> list[int]:
    return [int(task) for task in array.split(",")]


def test_a_signalled_job_saves_is_requeued_and_ends(
    slurm: Cluster, config: Path, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = pretrain(slurm, log, config)
    slurm.wait_for_text(log, "step 4/")
    slurm.command("scancel", "--signal=USR1", job)
    record = require_whole(slurm, job, log, run_settings)
    assert record["Restarts"] == "1"
    assert "exit code 75; steps 0 to " in log.read_text() and "resume: from" in log.read_text()


def test_a_cancelled_job_saves_and_stays_cancelled(
    slurm: Cluster, config: Path, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = pretrain(slurm, log, config, overrides=["train.save_every=0"])
    slurm.wait_for_text(log, "step 4/")
    slurm.command("scancel", job)
    assert slurm.wait(job)["JobState"] == "CANCELLED"
    slurm.wait_for_nodes()
    assert slurm.show(job)["JobState"] == "CANCELLED"
    last = metrics(run_settings)[-1]["step"]
    assert (Path(run_settings["output"]) / "checkpoints" / f"step-{last}").is_dir()


def test_a_job_of_which_a_rank_was_killed_is_requeued_as_it_had_saved_steps(
    slurm: Cluster, config: Path, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = pretrain(slurm, log, config)
    slurm.wait_for_text(log, "step 4/")
    os.kill(rank_of(job, 1), signal.SIGKILL)
    assert require_whole(slurm, job, log, run_settings)["Restarts"] == "1"
    assert "requeueing the job: exit code" in log.read_text()


def test_a_job_that_is_preempted_while_it_starts_comes_back(
    slurm: Cluster, config: Path, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = pretrain(slurm, log, config, "--partition=spot")
    slurm.wait(job, "RUNNING")
    urgent = slurm.submit("--partition=urgent", "--nodes=2", "--wrap=sleep 1", "--output=/dev/null")
    assert slurm.wait(urgent)["JobState"] == "COMPLETED"
    assert int(require_whole(slurm, job, log, run_settings)["Restarts"]) >= 1


def test_a_job_that_lost_a_node_comes_back(
    slurm: Cluster, config: Path, run_settings: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = pretrain(slurm, log, config)
    slurm.wait_for_text(log, "step 4/")
    slurm.daemons["node2"].kill()
    os.kill(rank_of(job, 1), signal.SIGKILL)
    slurm.daemons["node2"].wait()
    slurm.start_node("node2")
    assert int(require_whole(slurm, job, log, run_settings)["Restarts"]) >= 1


def test_a_time_limit_within_that_of_the_signal_is_told(
    slurm: Cluster, config: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = pretrain(slurm, log, config, "--time=4")
    assert slurm.wait(job)["ExitCode"] == "2:0"
    assert "the time limit is 240 s, and the signal to save comes 300 s" in log.read_text()


def test_the_tasks_of_a_sweep_have_their_own_outputs_and_the_gpus_give_the_ranks(
    slurm: Cluster, config: Path, tmp_path: Path
) -> None:
    job = slurm.submit(
        *("--array=3-4", "--nodes=1", "--gpus-per-node=2", f"--output={tmp_path}/%a.log"),
        *(SCRIPTS / "pretrain.sbatch", config, "train.steps=2", "train.seed={SLURM_ARRAY_TASK_ID}"),
        f"output={tmp_path}/run-{{SLURM_ARRAY_TASK_ID}}",
        VENV=VENV,
    )
    for task in (3, 4):
        log = tmp_path / f"{task}.log"
        assert slurm.wait(f"{job}_{task}")["JobState"] == "COMPLETED", log.read_text()
        assert "2 group(s) of 1 rank(s)" in log.read_text()
        config_of_run = yaml.safe_load((tmp_path / f"run-{task}" / "config.yaml").read_text())
        assert config_of_run["train"]["seed"] == task
