"""The Triton kernels as machine code, compiled for NVIDIA GPUs that need not be present.

    python benchmarks/gpu/machine_code.py                        # sm_80, sm_90 and sm_120
    python benchmarks/gpu/machine_code.py --arch 90 --json result.json
    python benchmarks/gpu/machine_code.py --arch 80 --dtype fp32 --precision ieee --head-size 128

Each kernel is compiled for blocks of 64, heads of 64 and bf16, unless stated otherwise, without and
with a mask, and read back with the tools in Triton's wheel. A line a kernel: registers a thread;
stack, which is where registers are spilled to; shared memory; programs a multiprocessor, as
registers and shared memory allow; and of the loop over tiles its instructions, matrix instructions
and asynchronous copies, and how many groups of copies may still be under way when a tile begins
("wait": 0 means that nothing is loaded in advance).

Nothing is run, so this does not measure speed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works without an installed package

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bigbird_ds.attention.device import EXACT_FP32
from bigbird_ds.attention.triton import backward, forward, launch, merge

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Shared memory in KiB: of a program, of which each takes one more, and of a multiprocessor.
SHARED_KIB = {80: (163, 164), 86: (99, 100), 89: (99, 100), 90: (227, 228), 100: (227, 228)}
SHARED_KIB[120] = SHARED_KIB[86]
REGISTERS = 65_536  # of a multiprocessor

LOOPS = {
    "forward": forward._forward_kernel,
    "query_gradients": backward._query_kernel,
    "key_gradients": backward._key_kernel,
}
OTHERS = {
    "delta": backward._delta_kernel,
    "merge": merge._merge_kernel,
    "sum": merge._sum_kernel,
}
POINTERS = {"items": "*i32", "merges": "*i32", "entries": "*i64", "row_values": "*i64"}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FP32 = ("part", "lse", "grad_lse")
RESULTS = ("out_ptr", "grad_q_ptr", "result_ptr", "second_ptr")


@dataclass(frozen=True)
class MachineCode:
    """What one kernel compiled to; the fields of the loop are None where there is none."""

    kernel: str
    arch: int
    masked: bool
    registers: int
    stack: int
    shared: int
    programs: int
    loop: int | None
    matrix: int | None
    copies: int | None
    wait: int | None


@dataclass(frozen=True)
class Tiles:
    """What the kernels are compiled for."""

    block: int = 64
    width: int = 64
    dtype: str = "bf16"
    precision: str = EXACT_FP32[0]  # of fp32 products


def examine(name: str, arch: int, masked: bool, tiles: Tiles) -> MachineCode:
    """Compile a kernel and read its machine code.

    With a mask: one a head, and results in fp32. Without: results in the dtype of the queries.
    """
    compiled = _compile(name, arch, masked, tiles)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = _run("cuobjdump", "-res-usage", str(cubin))
        listing = _run("nvdisasm", "-c", str(cubin))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    registers, stack = map(int, found.groups())
    shared, threads = compiled.metadata.shared, 32 * compiled.metadata.num_warps
    by_registers = REGISTERS // (-(-registers // 8) * 8 * threads)
    fits = shared <= SHARED_KIB[arch][0] * 1024
    by_memory = SHARED_KIB[arch][1] * 1024 // (shared + 1024) if fits else 0
    body = _loop(listing) if name in LOOPS else []
    waits = [int(x, 16) for x in re.findall(r"(?m)^DEPBAR\.LE SB0, (0x\w+)", "\n".join(body))]
    return MachineCode(
        name,
        arch,
        masked,
        registers,
        stack,
        shared,
        min(by_registers, by_memory),
        loop=len(body) or None,
        matrix=sum("MMA" in line for line in body) if body else None,
        copies=sum("LDGSTS" in line for line in body) if body else None,
        wait=waits[0] if waits else None,
    )


def _compile(name: str, arch: int, masked: bool, tiles: Tiles) -> Any:
    kernel = (LOOPS | OTHERS)[name]
    names = list(kernel.arg_names)
    constants: dict[str, Any] = {"BLOCK": tiles.block, "WIDTH": tiles.width, "ROWS": 16}
    pieces = launch.pieces_of(tiles.block, DTYPES[tiles.dtype])
    constants |= {"PRECISION": tiles.precision, "PIECES": pieces}
    constants |= {"MASK_KEYS": masked, "MASK_QUERIES": masked, "HAS_GRAD_LSE": masked}
    if not masked:
        absent = ("query_mask_ptr", "key_mask_ptr", "least_ptr", "grad_lse_ptr")
        constants |= dict.fromkeys(absent)
    constants = {key: value for key, value in constants.items() if key in names}
    types = {x: "constexpr" if x in constants else _type(x, masked, tiles.dtype) for x in names}
    aligned = [
        index
        for index, (argument, kind) in enumerate(types.items())
        if kind.startswith("*") or argument.endswith(("_batch", "_head", "_row"))
    ]
    source = ASTSource(
        kernel,
        types,
        {(names.index(constant),): value for constant, value in constants.items()},
        {(index,): [["tt.divisibility", 16]] for index in aligned},
    )
    shared = SHARED_KIB[arch][0] * 1024
    options: dict[str, Any] = {}
    if name in LOOPS:
        dtype = DTYPES[tiles.dtype]
        options = launch.options_for(name, tiles.block, tiles.width, dtype, shared)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def _type(argument: str, fp32_results: bool, dtype: str) -> str:
    """Triton's type of an argument, by the names that the kernels use."""
    if not argument.endswith("_ptr"):
        return "fp32" if argument.endswith(("scale", "log2_e")) else "i32"
    if (kind := POINTERS.get(argument.removesuffix("_ptr"))) is not None:
        return kind
    if "mask" in argument or argument == "least_ptr":
        return "*u8"
    fp32 = FP32 + RESULTS if fp32_results else FP32
    return "*fp32" if argument.startswith(fp32) else f"*{dtype}"


def _loop(listing: str) -> list[str]:
    """The instructions of the longest loop that multiplies: with matrix instructions, else FFMA."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if (label := re.match(r"\s*(\.L_\w+):", line)) is not None:
            labels[label[1]] = len(instructions)
        elif (code := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line)) is not None:
            instructions.append(code[1])
    multiply = "MMA" if any("MMA" in line for line in instructions) else "FFMA"
    longest: list[str] = []
    for end, instruction in enumerate(instructions):
        branch = re.search(r"BRA.*?(\.L_\w+)", instruction)
        if branch is not None and labels.get(branch[1], end + 1) <= end:
            body = instructions[labels[branch[1]] : end + 1]
            if len(body) > len(longest) and any(multiply in line for line in body):
                longest = body
    return longest


def _run(tool: str, *arguments: str) -> str:
    ended = subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True)
    return ended.stdout + ended.stderr


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", type=int, nargs="+", choices=SHARED_KIB, default=[80, 90, 120])
    parser.add_argument("--block", type=int, choices=(16, 32, 64, 128), default=64)
    parser.add_argument("--head-size", type=int, choices=(16, 32, 64, 128), default=64)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--precision", choices=("ieee", "tf32", "tf32x3"), default=Tiles.precision)
    parser.add_argument("--json", type=Path, help="write the same as JSON to this file")
    arguments = parser.parse_args()
    tiles = Tiles(arguments.block, arguments.head_size, arguments.dtype, arguments.precision)
    fields = list(MachineCode.__dataclass_fields__)
    print(f"Triton {triton.__version__}, {tiles}\n\n| {' | '.join(fields)} |")
    print("|" + "---|" * len(fields))
    codes = []
    for arch in arguments.arch:
        for name in LOOPS | OTHERS:
            for masked in (False, True):
                codes.append(examine(name, arch, masked, tiles))
                row = ["-" if x is None else str(x) for x in asdict(codes[-1]).values()]
                print(f"| {' | '.join(row)} |", flush=True)
    if arguments.json is not None:
        content = {
            "triton": triton.__version__,
            **asdict(tiles),
            "kernels": [asdict(code) for code in codes],
        }
        arguments.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
