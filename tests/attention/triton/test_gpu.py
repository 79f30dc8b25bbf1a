"""The Triton kernels on a real GPU, at real sizes; skipped without one.

checks.py holds all other properties, and runs on a GPU too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.triton_cases import padding_cases, padding_masks

from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.choice import choose_backend
from bigbird_ds.attention.device import runs_triton_kernels

CUDA = torch.device("cuda")
pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and runs_triton_kernels(CUDA)),
    reason="no GPU that the Triton kernels run on",
)
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def results(dtype: torch.dtype, like, pattern, mask, backend: str) -> list[torch.Tensor]:
    """Context and gradients, computed in ``dtype``."""
    inputs = [x.detach().to(dtype).requires_grad_() for x in like]
    context = block_sparse_attention(*inputs, pattern, mask, backend)
    weight = torch.linspace(-1, 2, context.numel(), dtype=torch.float64, device=CUDA)
    weight = weight.view(context.shape).to(dtype)
    return [context.detach(), *torch.autograd.grad((context * weight).sum(), inputs)]


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(
    "block_size,width", [(64, 64), (64, 128), (64, 80), (16, 64), (32, 32), (128, 64)]
)
@pytest.mark.parametrize("style,training", [("hf", True), ("hf", False), ("uniform", True)])
@pytest.mark.parametrize("masked", [False, True])
def test_results_and_gradients_equal_the_reference(
    dtype: torch.dtype, block_size: int, width: int, style: str, training: bool, masked: bool
) -> None:
    seq_len = 24 * block_size
    pattern = BlockPattern.build(seq_len, 3, block_size, 3, style, layer=2, training=training)
    torch.manual_seed(0)
    like = [torch.randn(2, 3, seq_len, width, device=CUDA).to(dtype) for _ in range(3)]
    lengths = torch.tensor([seq_len - 70, seq_len // 2], device=CUDA)
    mask = torch.arange(seq_len, device=CUDA)[None] < lengths[:, None] if masked else None
    found = results(dtype, like, pattern, mask, "triton")
    wanted = results(torch.float64, like, pattern, mask, "reference")
    for have, want in zip(found, wanted, strict=True):
        assert (have.double() - want).norm() < BOUNDS[dtype] * want.norm()


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 96, 112, 128])
def test_padding_is_right_wherever_it_lies(dtype: torch.dtype, width: int) -> None:
    """48 blocks, so that rows are split into pieces, some of which hold only padding."""
    seq_len = 48 * 64
    pattern = BlockPattern.build(seq_len, 2, layer=2)
    masks = padding_masks(seq_len, 64)
    torch.manual_seed(0)
    like = [torch.randn(len(masks), 2, seq_len, width, device=CUDA).to(dtype) for _ in range(3)]
    found = results(dtype, like, pattern, masks, "triton")
    wanted = results(torch.float64, like, pattern, masks, "gathered")
    for sample, name in enumerate(padding_cases(seq_len, 64)):
        sizes = [want[sample].norm() for want in wanted]
        for have, want, size in zip(found, wanted, sizes, strict=True):
            # The exact gradients of a query that sees one key are 0: rounding is all there is.
            bound = BOUNDS[dtype] * max(size, max(sizes) / 20)
            assert (have[sample].double() - want[sample]).norm() <= bound, name


@pytest.mark.parametrize("seq_len", [1024, 4096, 4160, 16_384, 65_536])
def test_long_sequences_equal_the_gathered_backend_in_double_precision(seq_len: int) -> None:
    """``gathered`` is linear in memory, and equals the reference (test_backends.py)."""
    pattern = BlockPattern.build(seq_len, 2, layer=3, max_positions=65_536)
    torch.manual_seed(0)
    like = [torch.randn(1, 2, seq_len, 64, device=CUDA).bfloat16() for _ in range(3)]
    found = results(torch.bfloat16, like, pattern, None, "triton")
    wanted = results(torch.float64, like, pattern, None, "gathered")
    for have, want in zip(found, wanted, strict=True):
        assert (have.double() - want).norm() < BOUNDS[torch.bfloat16] * want.norm()


def test_batch_times_heads_may_exceed_the_short_axes_of_a_grid() -> None:
    """They end at 65,535."""
    pattern = BlockPattern.build(5 * 16, 3, 16, 0)
    torch.manual_seed(0)
    like = [torch.randn(22_000, 3, 80, 16, device=CUDA).bfloat16() for _ in range(3)]
    found = results(torch.bfloat16, like, pattern, None, "triton")
    wanted = results(torch.float64, like, pattern, None, "gathered")
    for have, want in zip(found, wanted, strict=True):
        assert (have.double() - want).norm() < BOUNDS[torch.bfloat16] * want.norm()


def test_two_runs_give_the_same_bits() -> None:
    pattern = BlockPattern.build(4096)
    like = [torch.randn(2, 12, 4096, 64, device=CUDA) for _ in range(3)]
    one, other = (results(torch.bfloat16, like, pattern, None, "triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_auto_takes_the_kernels_on_a_gpu() -> None:
    q = torch.zeros(1, 12, 4096, 64, device=CUDA, dtype=torch.bfloat16)
    assert choose_backend(q, BlockPattern.build(4096)) == "triton"
    assert choose_backend(q.double(), BlockPattern.build(4096)) == "gathered"


@pytest.mark.parametrize("file", ["checks.py", "padding_checks.py"])
def test_the_checks_of_the_interpreter_hold_on_the_gpu_too(file: str) -> None:
    checks = str(Path(__file__).parent / file)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", checks]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
