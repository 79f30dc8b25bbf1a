"""What a run finds in this environment: packages, devices, attention backends, compilers, host.

Every check works without the packages that it reports on, and a check that fails is an entry too.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from bigbird_ds.sizes import GIB
from bigbird_ds.training.reports.host_report import (
    Entry,
    folder_entries,
    memory_entries,
    network_entries,
)

# Distribution -> (module, what needs it). A run cannot start without these.
_OF_RUNS = {
    "torch": ("torch", "everything"),
    "deepspeed": ("deepspeed", "training"),
    "numpy": ("numpy", "everything"),
    "pydantic": ("pydantic", "configs and manifests"),
    "PyYAML": ("yaml", "run configs"),
    "safetensors": ("safetensors", "weights and checkpoints"),
    "sentencepiece": ("sentencepiece", "tokenizers"),
}
_OTHERS = {
    "tokenizers": ("tokenizers", "`bigbird-ds tokenizer` and exports"),
    "tensorboard": ("tensorboard", "train.trackers: [tensorboard]"),
    "webdataset": ("webdataset", "reading shards with WebDataset's own loader"),
    "datasets": ("datasets", "saved `datasets` folders as input"),
    "pyarrow": ("pyarrow", ".parquet and .arrow as input"),
    "zstandard": ("zstandard", ".zst as input"),
    "fsspec": ("fsspec", "inputs at URLs"),
    "tqdm": ("tqdm", "progress bars of data preparation"),
    "transformers": ("transformers", "checking exports, fine-tuning; training does not need it"),
    "triton": ("triton", "the attention kernels on GPUs, and `plan --gpu`"),
    "matplotlib": ("matplotlib", "`plot`, `attention`, curves"),
}
UNKNOWN = "of unknown version"
_IMPORT_S = 8.0
# As a run does, which chooses DeepSpeed's accelerator first (distributed.py).
_IMPORTS = """
import importlib, os, sys
if "torch" in sys.argv and not importlib.import_module("torch").cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def examine(folder: Path) -> list[Entry]:
    """Look at everything; takes seconds, and leaves nothing in ``folder``."""
    checks: dict[str, Callable[[], Iterator[Entry]]] = {
        "packages": package_entries,
        "devices": device_entries,
        "attention": attention_entries,
        "compilers": compiler_entries,
        "memory": memory_entries,
        "folder": lambda: folder_entries(folder),
        "free space": lambda: _disk_entries(folder),
        "network": network_entries,
    }
    found: list[Entry] = []
    for name, check in checks.items():
        try:
            found += check()
        except Exception as cause:  # a broken driver or package must not hide the other entries
            found.append(
                Entry(
                    name,
                    f"not checked, {type(cause).__name__}: {_last_line(str(cause))}",
                    needed_for="this check",
                    remedy="see the entries of packages first",
                )
            )
    return found


def package_entries() -> Iterator[Entry]:
    """Versions; whether they are in the range, and whether what a run needs can be imported."""
    yield Entry("Python", f"{platform.python_version()} ({sys.executable})")
    ranges = _ranges()
    for name, (module, needed_for) in (_OF_RUNS | _OTHERS).items():
        if importlib.util.find_spec(module) is None:
            install = f"pip install '{name}{ranges.get(name.lower(), '')}'"
            yield Entry(name, "not installed", needed_for, install, stops=name in _OF_RUNS)
            continue
        version = _version(name)
        wanted = ranges.get(name.lower(), "")
        if _is_outside(version, wanted):
            yield Entry(name, version, needed_for, f"pip install '{name}{wanted}' (tested range)")
        else:
            yield Entry(name, version)
    yield from _import_entries()


def _import_entries() -> Iterator[Entry]:
    """Imports what a run needs in a process of its own, because DeepSpeed changes the process."""
    modules = [module for module, _ in _OF_RUNS.values() if importlib.util.find_spec(module)]
    needed_for = "every process of a run"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORTS, *modules],
            capture_output=True,
            text=True,
            timeout=_IMPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        found = f"not finished after {_IMPORT_S:.0f} s"
        yield Entry("imports", found, needed_for, "put the Python environment on a local disk")
        return
    if done.returncode:
        found = f"fails: {_last_line(done.stderr) or f'exit code {done.returncode}'}"
        yield Entry("imports", found, needed_for, "reinstall that package", stops=True)
    else:
        yield Entry("imports", f"{', '.join(modules)} can be imported")


def _ranges() -> dict[str, str]:
    """Version ranges of this package's dependencies, by name in lower case; may be empty."""
    try:
        from packaging.requirements import Requirement

        wanted = map(Requirement, importlib.metadata.requires("bigbird-ds") or [])
        return {need.name.lower(): str(need.specifier) for need in wanted}
    except (ImportError, importlib.metadata.PackageNotFoundError):
        return {}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


def _is_outside(version: str, wanted: str) -> bool:
    if not wanted or version == UNKNOWN:
        return False
    from packaging.specifiers import SpecifierSet

    return not SpecifierSet(wanted).contains(version, prereleases=True)


def device_entries() -> Iterator[Entry]:
    """GPUs, NCCL and gloo, and CPU cores."""
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    yield Entry(
        "CPU cores",
        f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} usable; OMP_NUM_THREADS {threads}",
    )
    driver = Path("/proc/driver/nvidia/version")
    if not torch.cuda.is_available():
        has_card = driver.exists() or Path("/dev/nvidia0").exists()
        remedy = "a CUDA build of torch" if torch.version.cuda is None else "a newer NVIDIA driver"
        yield Entry(
            "GPU",
            "torch sees none" + (", but an NVIDIA driver is loaded" if has_card else ""),
            needed_for="training on this GPU" if has_card else "",
            remedy=f"{remedy} (torch {torch.__version__}); CUDA_VISIBLE_DEVICES"
            if has_card
            else "",
        )
    else:
        if driver.exists():
            yield Entry("driver", driver.read_text().splitlines()[0].partition(": ")[2].strip())
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            free = torch.cuda.mem_get_info(index)[0] / GIB
            yield Entry(
                f"GPU {index}",
                f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB ({free:.0f} free), compute "
                f"capability {gpu.major}.{gpu.minor}, CUDA {torch.version.cuda}",
            )
        if torch.distributed.is_nccl_available():
            version = ".".join(map(str, torch.cuda.nccl.version()))
            yield Entry("NCCL", version)
        else:
            yield Entry("NCCL", "not in torch", "several GPUs", "a CUDA build of torch")
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        yield Entry("gloo", "not in torch", "every run", "a build of torch with gloo", stops=True)


def attention_entries() -> Iterator[Entry]:
    """The backend that ``auto`` takes for 64-token blocks and heads of 64, and why no other."""
    import torch

    from bigbird_ds.attention.choice import BACKENDS
    from bigbird_ds.attention.pattern import BlockPattern

    has_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if has_gpu else torch.float32
    q = torch.empty(1, 1, 1024, 64, dtype=dtype, device="cuda" if has_gpu else "cpu")
    pattern = BlockPattern.build(1024, num_heads=1)
    skipped = []
    for backend in BACKENDS.values():
        reason = backend.why_not(q, pattern)
        if reason is None:
            break
        skipped.append(f"{backend.name}: {reason}")
    found = f"auto takes {backend.name}" + "".join(f"; not {reason}" for reason in skipped)
    if has_gpu and skipped:
        yield Entry("attention", found, "fast attention on this GPU", BACKENDS["triton"].needs)
    elif os.environ.get("TRITON_INTERPRET") == "1":
        slow = "unset TRITON_INTERPRET, which runs the kernels in Python"
        yield Entry("attention", found, "fast attention", slow)
    else:
        yield Entry("attention", found)


def compiler_entries() -> Iterator[Entry]:
    """A C compiler, a C++ compiler and Python's headers; a CPU run needs none."""
    for name, variable, commands, needed_for in (
        ("C compiler", "CC", ("gcc", "clang"), "the Triton kernels on GPUs"),
        ("C++ compiler", "CXX", ("g++", "clang++"), "train.compile"),
    ):
        words = [*filter(None, [os.environ.get(variable)]), *commands]
        path = next(filter(None, map(shutil.which, words)), None)
        if path:
            yield Entry(name, path)
        else:
            install = f"apt install {commands[0]}, or set {variable}"
            yield Entry(name, f"none of {', '.join(words)}", needed_for, install)
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if header.is_file():
        yield Entry("Python.h", str(header))
    else:
        install = "apt install python3-dev (of this Python's version)"
        yield Entry("Python.h", f"no {header}", "the Triton kernels on GPUs", install)


def _disk_entries(folder: Path) -> Iterator[Entry]:
    from bigbird_ds.training.checkpoints.disk import free_bytes

    found = f"{free_bytes(folder) / GIB:.1f} GiB on the disk of {folder}"
    yield Entry("free space", found)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:200]
