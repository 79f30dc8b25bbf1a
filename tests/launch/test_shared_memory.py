"""A run leaves nothing in /dev/shm, compiles nothing, and fits a container's 64 MiB."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.processes import PRETRAIN, free_port, run

# Runs a command with its own /dev/shm, then lists what the command left there.
IN_64_MIB = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && "$@" && echo "left: $(ls -A /dev/shm)"'
UNSHARE = ["unshare", "--mount", "sh", "-c", IN_64_MIB, "sh"]


def can_mount() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.launch
@pytest.mark.skipif(not can_mount(), reason="needs root and unshare, to mount a small /dev/shm")
@pytest.mark.parametrize("offload", [False, True], ids=["on the device", "offload to the CPU"])
def test_two_ranks_train_without_shared_memory_or_a_compiler(
    offload: bool, run_config_file: Path, tmp_path: Path
) -> None:
    extensions = tmp_path / "extensions"
    options = ["deepspeed.zero_optimization.offload_optimizer.device=cpu"] if offload else []
    done = run(
        *UNSHARE,
        *("deepspeed", "--num_gpus", 2, "--master_port", free_port(23000)),
        *(PRETRAIN, run_config_file, f"output={tmp_path / 'run'}", *options),
        TORCH_EXTENSIONS_DIR=str(extensions),
        CC="/bin/false",
        CXX="/bin/false",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("left:")
    assert not extensions.exists()
