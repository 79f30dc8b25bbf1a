"""The Triton backend on a machine without a GPU: correct under the interpreter, compiled for the
supported GPUs, and never imported where it cannot run.

Each check runs in a separate process, because the environment selects the interpreter before Triton
is imported.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bigbird_ds.attention import BlockPattern, block_sparse_attention, choice, device
from bigbird_ds.attention.choice import choose_backend
from bigbird_ds.errors import ConfigError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# Programs per multiprocessor of Hopper: (kernel, with a mask) -> number, with any Triton since 3.6.
LEAST_PROGRAMS = {("forward", False): 4, ("forward", True): 3}
LEAST_PROGRAMS |= {("query_gradients", masked): 3 for masked in (False, True)}
LEAST_PROGRAMS |= {("key_gradients", masked): 2 for masked in (False, True)}
CHECKS, PADDING_CHECKS = "checks.py", "padding_checks.py"
GROUPS = {"results": "equal_the_reference", "operators": "operator or checkpoint"}
GROUPS["the rest"] = f"not ({' or '.join(GROUPS.values())})"

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def run(command: list[str], **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if "TRITON" not in name}
    ended = subprocess.run(
        [sys.executable, *command],
        env=environment | {"OMP_NUM_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@needs_triton
@pytest.mark.parametrize(
    "file,chosen",
    [*((CHECKS, chosen) for chosen in GROUPS.values()), (PADDING_CHECKS, "")],
    ids=[*GROUPS, "padding"],
)
def test_the_kernels_are_right_under_the_interpreter(file: str, chosen: str) -> None:
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, str(HERE / file)]
    output = run(command, TRITON_INTERPRET="1")
    assert " passed" in output and "skipped" not in output


@needs_triton
@pytest.mark.parametrize("capability,dtype", [(80, "bf16"), (90, "bf16"), (90, "fp32")])
def test_the_kernels_compile_to_code_of_a_card_that_is_not_there(
    capability: int, dtype: str, tmp_path: Path
) -> None:
    """The interpreter accepts programs that the compiler rejects.

    Also guards the optimizations in machine code: no register is spilled, and on Hopper the next
    tile is prefetched while several programs share a multiprocessor.
    """
    result = tmp_path / "result.json"
    command = [str(ROOT / "benchmarks" / "gpu" / "machine_code.py"), "--arch", str(capability)]
    command += ["--dtype", dtype]
    run([*command, "--json", str(result)], TRITON_CACHE_DIR=str(tmp_path / "cache"))
    kernels = json.loads(result.read_text())["kernels"]
    loops = [code for code in kernels if code["loop"]]
    assert (len(kernels), len(loops)) == (12, 6)
    assert not any(code["stack"] for code in loops)
    assert all(code["matrix"] and code["copies"] for code in loops)
    if dtype == "fp32":
        return
    assert all(code["wait"] >= 2 for code in loops)
    if capability == 90:
        programs = [(code["kernel"], code["masked"], code["programs"]) for code in loops]
        for kernel, masked, number in programs:
            assert number >= LEAST_PROGRAMS[kernel, masked], programs


def test_auto_on_the_cpu_a_model_and_the_training_code_import_no_triton() -> None:
    # With activation checkpointing torch itself looks for Triton, on any machine.
    run(
        [
            "-c",
            """
import sys, torch
import bigbird_ds, bigbird_ds.training.loop, bigbird_ds.training.setup
from bigbird_ds.attention import BlockPattern, block_sparse_attention, choice, device
from bigbird_ds.attention.choice import choose_backend
q = torch.randn(1, 12, 4096, 64, requires_grad=True)
block_sparse_attention(q, q, q, BlockPattern.build(4096)).sum().backward()
config = bigbird_ds.BigBirdConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=32, vocab_size=128, block_size=16, num_random_blocks=1)
model = bigbird_ds.BigBirdForMaskedLM(config).train()
model(torch.ones(1, 256, dtype=torch.long)).logits.sum().backward()
loaded = sorted(name for name in sys.modules if name == "triton" or name.startswith("triton."))
assert not loaded, loaded
""",
        ]
    )


@needs_triton
@pytest.mark.parametrize(
    "dtype,block,width,kib,chosen",
    [
        (torch.float32, 64, 64, 99, "triton"),
        # Of 99 KiB, as on a consumer card, the forward takes 97, and the gradients 112 and 128.
        (torch.float32, 128, 32, 99, "gathered"),
        (torch.float32, 128, 32, 163, "triton"),
        (torch.float32, 64, 80, 227, "gathered"),  # wider heads of fp32 spill registers
        (torch.bfloat16, 64, 128, 99, "triton"),
        (torch.bfloat16, 128, 128, 99, "gathered"),
        (torch.bfloat16, 128, 128, 163, "triton"),
    ],
)
def test_auto_takes_the_kernels_where_registers_and_shared_memory_suffice(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    dtype: torch.dtype,
    block: int,
    width: int,
    kib: int,
    chosen: str,
) -> None:
    card = SimpleNamespace(major=8, minor=9, name="", shared_memory_per_block_optin=kib << 10)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(device, "_why_no_launch", lambda: None)
    device._why_not_device.cache_clear()
    pattern = BlockPattern.build(8 * block, 2, block, 0)
    q = SimpleNamespace(shape=(1, 2, 8 * block, width), dtype=dtype, device=torch.device("cuda"))
    monkeypatch.setattr(logging.getLogger("bigbird_ds"), "propagate", True)
    caplog.set_level("INFO", "bigbird_ds")
    choice._say_once.cache_clear()
    assert choose_backend(q, pattern) == chosen  # type: ignore[arg-type]
    products = "fp32 products by tf32x3" if dtype == torch.float32 and chosen == "triton" else ""
    assert f"attention backend: {chosen}" in caplog.text and products in caplog.text
    if width > 64 and dtype == torch.float32:
        assert "triton skipped: its fp32 kernels spill registers at head size" in caplog.text
    device._why_not_device.cache_clear()


# What each launch passes to the card, with a driver that compiles and launches nothing.
LAUNCHES = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gpu"]
import torch, triton
from host_time import NoGpu
from bigbird_ds.attention import BlockPattern
from bigbird_ds.attention.triton.backend import triton_attention

class Recording(NoGpu):
    def launcher_cls(self, source, metadata):
        def launch(x, y, z, stream, function, packed, metadata, enter, leave, *rest):
            rest = [(v.dtype, v.shape, v.stride()) if hasattr(v, "stride") else v for v in rest]
            launches.append((source.fn.__name__, x, y, z, function, rest))
        return launch

def counted(self, *arguments, **options):
    by_triton.append(self)
    return real_run(self, *arguments, **options)

real_run, triton.JITFunction.run = triton.JITFunction.run, counted
triton.runtime.driver.set_active(Recording())
pattern = BlockPattern.build(40 * 16, 1, 16, 0)

def run(start):
    global launches, by_triton
    launches, by_triton = [], []
    storage = torch.zeros(640 * 16 + 8).bfloat16()
    q, k, v = (storage[start : start + 640 * 16].view(1, 1, 640, 16) for _ in range(3))
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    triton_attention(*inputs, pattern, mask).sum().backward()
    return launches, len(by_triton)

for mask, new in ((None, 7), (torch.ones(1, 640), 3)):  # three kernels read the inputs
    (first, slow), (second, fast), (unaligned, again) = run(0), run(0), run(1)
    assert (slow, fast, again) == (new, 0, 3), (slow, fast, again)
    assert first == second, (first, second)
    functions = [{launch[0]: launch[4] for launch in each} for each in (first, unaligned)]
    changed = {name for name in functions[0] if functions[0][name] != functions[1][name]}
    assert changed == {"_forward_kernel", "_query_kernel", "_key_kernel"}, functions
"""


@needs_triton
def test_a_kernel_that_is_looked_up_gets_what_triton_passes_it(tmp_path: Path) -> None:
    """And is looked up by whatever Triton compiles it for, such as alignment."""
    variables = {"TRITON_CACHE_DIR": str(tmp_path)}
    run(["-c", LAUNCHES, str(ROOT / "benchmarks")], **variables)


# A GPU as far as Python looks; Triton's own code looks for a compiler, finds none, and says so.
CHOOSE_ON_A_GPU = """
import logging, sys, sysconfig
from types import SimpleNamespace
import torch
from triton.backends.nvidia.driver import CudaDriver
from bigbird_ds.attention import BlockPattern
from bigbird_ds.attention.choice import choose_backend
logging.basicConfig(level=logging.INFO)
CudaDriver.is_active = staticmethod(lambda: True)
torch.cuda.get_device_properties = lambda _: SimpleNamespace(
    major=8, minor=0, name="a GPU", shared_memory_per_block_optin=163 << 10)
q = SimpleNamespace(shape=(1, 2, 96, 16), dtype=torch.bfloat16, device=torch.device("cuda"))
if sys.argv[1:]:
    real = sysconfig.get_paths
    sysconfig.get_paths = lambda **options: real(**options) | {"include": sys.argv[1]}
for _ in range(2):
    print("chosen:", choose_backend(q, BlockPattern.build(96, 2, 16, 0)))
"""


@needs_triton
@pytest.mark.parametrize("missing", ["compiler", "Python.h"])
def test_a_node_that_cannot_compile_takes_the_gathered_backend_and_says_so_once(
    missing: str, tmp_path: Path
) -> None:
    variables = {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "TRITON_LIBCUDA_PATH": str(tmp_path)}
    command = ["-c", CHOOSE_ON_A_GPU]
    if missing == "compiler":
        variables["PATH"] = str(tmp_path)
    else:
        command.append(str(tmp_path))
    output = run(command, **variables)
    assert output.count("chosen: gathered") == 2
    wanted = {"compiler": "no C compiler", "Python.h": "no Python.h"}[missing]
    assert (
        output.count(f"attention backend: gathered; triton not supported: Triton finds {wanted}")
        == 1
    )
    assert output.count("WARNING:bigbird_ds:") == 1  # ranks other than 0 log only these


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_the_kernels_without_a_gpu_says_why_not() -> None:
    pattern = BlockPattern.build(96, 2, 16, 0)
    q = torch.zeros(1, 2, 96, 16)
    with pytest.raises(ConfigError, match="does not support this input") as caught:
        block_sparse_attention(q, q, q, pattern, backend="triton")
    assert "cpu" in caught.value.seen or "not installed" in caught.value.seen


def test_sizes_and_types_that_the_kernels_lack_are_named() -> None:
    pattern = BlockPattern.build(96, 2, 8, 0)
    with pytest.raises(ConfigError, match="block size 8"):
        block_sparse_attention(*[torch.zeros(1, 2, 96, 16)] * 3, pattern, backend="triton")
    pattern = BlockPattern.build(96, 2, 16, 0)
    with pytest.raises(ConfigError, match="head size 136") as caught:
        block_sparse_attention(*[torch.zeros(1, 2, 96, 136)] * 3, pattern, backend="triton")
    assert "head size up to 128" in caught.value.needed
    with pytest.raises(ConfigError, match="float64"):
        q = torch.zeros(1, 2, 96, 16, dtype=torch.float64)
        block_sparse_attention(q, q, q, pattern, backend="triton")
