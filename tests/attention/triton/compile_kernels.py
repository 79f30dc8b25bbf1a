"""Compile the kernels for an NVIDIA card that need not be there: compile_kernels.py CAPABILITY

Prints a line a kernel and ends with an error where one does not compile or needs more shared memory
than the card has.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bigbird_ds.attention.triton import backward, forward, launch, merge

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
MAIN = {
    "forward": forward._forward_kernel,
    "query_gradients": backward._query_kernel,
    "key_gradients": backward._key_kernel,
}
SMALL = {
    "delta": backward._delta_kernel,
    "merge": merge._merge_kernel,
    "sum": merge._sum_kernel,
}
TABLES = ("items_ptr", "entries_ptr", "merges_ptr", "real_keys_ptr")
FP32 = ("part", "lse", "grad_lse", "base", "delta")
RESULTS = ("out_ptr", "grad_q_ptr", "result_ptr")


def argument_types(
    names: list[str], constants: dict[str, Any], fp32_results: bool
) -> dict[str, str]:
    """Triton's type of each argument, from the names that the kernels use."""
    fp32 = FP32 + RESULTS if fp32_results else FP32
    types = {}
    for name in names:
        if name in constants:
            types[name] = "constexpr"
        elif not name.endswith("_ptr"):
            types[name] = "fp32" if name.endswith(("scale", "log2_e")) else "i32"
        elif name in TABLES:
            types[name] = "*i32"
        elif "mask" in name:
            types[name] = "*u8"
        else:
            types[name] = "*fp32" if name.startswith(fp32) else "*bf16"
    return types


def compile_kernel(name: str, capability: int, masked: bool) -> Any:
    """With a mask a head, one table for all heads of one and results in fp32; or without a mask,
    with a table a head and results in bf16."""
    kernel = (MAIN | SMALL)[name]
    names = list(kernel.arg_names)
    constants: dict[str, Any] = {"BLOCK": 64, "WIDTH": 64, "ROWS": 16, "PRECISION": "ieee"}
    constants |= {"MASK_KEYS": masked, "MASK_QUERIES": masked, "HAS_GRAD_LSE": masked}
    if masked:
        constants |= {"tables": 1, "heads": 1}  # as Triton treats an argument that is 1
    else:
        constants |= dict.fromkeys(
            ("query_mask_ptr", "key_mask_ptr", "real_keys_ptr", "grad_lse_ptr")
        )
    constants = {name: value for name, value in constants.items() if name in names}
    types = argument_types(names, constants, fp32_results=masked)
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
    options = {}
    if name in MAIN:
        options = launch.launch_options(name, 64, 64, torch.bfloat16, torch.device("cpu"))
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def main() -> None:
    capability = int(sys.argv[1])
    launch._shared_memory = lambda device: SHARED_MEMORY[capability]
    for name in MAIN | SMALL:
        for masked in (False, True):
            compiled = compile_kernel(name, capability, masked)
            assert "cubin" in compiled.asm
            shared = compiled.metadata.shared
            assert shared <= SHARED_MEMORY[capability]
            print(f"compiled {name}, masked={masked}: {shared:,} bytes of shared memory")


if __name__ == "__main__":
    main()
