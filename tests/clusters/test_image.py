"""Each line of docker/Dockerfile in a chroot, then runs in it as its user: ``make test-image``.

No container engine is needed. Debian comes from debootstrap, which stands in for the base image;
pip takes the indexes of this machine, and so the build of torch that they have.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chroot import ADDRESSES, Image, why_not
from support.dockerfile import instructions
from support.processes import REPOSITORY, wait_for

REASON = why_not()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
ON_TWO_HOSTS = (
    "docker/sshd.sh deepspeed --hostfile=docker/hostfile launch/pretrain.py "
    "configs/run/tiny_cpu.yaml data.sequence_length=256 batch.sequences=2 batch.micro=1 "
    "schedule.warmup_steps=1 "
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    root = tmp_path_factory.mktemp("image") / "root"
    built = Image(root, {"TORCH": os.environ.get("TORCH", "torch==2.13.0"), "UID": "1234"})
    try:
        for line in instructions((REPOSITORY / "docker" / "Dockerfile").read_text()):
            start = time.perf_counter()
            print(f"\n== {line.word} {line.value}", flush=True)
            built.execute(line)
            print(f"== {time.perf_counter() - start:.0f} s", flush=True)
        # Both hosts of docker/hostfile are this one, under two addresses.
        names = f"127.0.0.1 localhost\n{ADDRESSES[0]} gpu01\n{ADDRESSES[1]} gpu02\n"
        (root / "etc" / "hosts").write_text(names)
        yield built
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def work(image: Image) -> Path:
    """work/ of the image, with a tokenizer and shards made there."""
    folder = image.root / "opt" / "bigbird_ds" / "work"
    texts = [f"Hill {i} is {i * 7} feet high. It has {i % 9} trees." * 20 for i in range(60)]
    lines = (json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "documents.jsonl").write_text("".join(lines))
    for words in (
        "bigbird-ds tokenizer work/documents.jsonl --out work/tokenizer --vocab-size 200",
        "bigbird-ds shard work/documents.jsonl --tokenizer work/tokenizer --out work/shards"
        " --validation-fraction 0.1",
    ):
        image.run(*words.split())
    return folder


def test_a_run_can_start(image: Image) -> None:
    image.run("bigbird-ds", "doctor", "--folder", "work")
    image.run("sh", "-c", "test $(id -u) = 1234 && ! test -w bigbird_ds")


def test_the_image_has_the_locked_versions(image: Image) -> None:
    image.run("pip", "check")
    code = "import re, sys; from importlib.metadata import distributions as installed\n"
    code += "lock = dict(re.findall(r'^(.+)==(.+)$', open(sys.argv[1]).read().lower(), re.M))\n"
    code += "found = {d.name.lower(): d.version for d in installed()}\n"
    code += "assert found.keys() >= {'transformers', 'deepspeed', 'torch'}, found\n"
    code += (
        "other = {n: v for n, v in found.items() if lock.get(n, v) != v}; assert not other, other"
    )
    image.run("python", "-c", code, "requirements/py311.txt")


def test_nccl_finds_the_libraries_of_infiniband(image: Image) -> None:
    code = "import ctypes; [ctypes.CDLL(f'lib{n}') for n in ('ibverbs.so.1', 'rdmacm.so.1')]"
    image.run("python", "-c", code)


def test_two_hosts_train_by_ssh_and_the_export_is_checked(image: Image, work: Path) -> None:
    image.run(*ON_TWO_HOSTS.split(), "train.steps=2", "train.save_every=2", timeout_s=600)
    logged = (work / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(logged[-1])["step"] == 2
    image.run("bigbird-ds", "export", "work/run", "work/export", timeout_s=600)
    assert (work / "export" / "model.safetensors").exists()


def test_a_stopped_container_waits_for_the_saves_of_its_ranks(image: Image, work: Path) -> None:
    words = [
        *ON_TWO_HOSTS.split(),
        "train.steps=100000",
        "train.log_every=1",
        "output=work/stopped",
    ]
    process = subprocess.Popen(image.command(*words), env=image.environment())
    metrics = work / "stopped" / "metrics.jsonl"
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.1)
    wait_for(metrics, '"step": 2', process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)  # as `docker stop` does, to process 1
    assert process.wait(timeout=300) != 0
    assert list((work / "stopped" / "checkpoints").iterdir())
