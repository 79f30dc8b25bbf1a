"""The Triton kernels on padded input, with matrix products computed as a GPU computes them.

Run like checks.py, which says how. Under the interpreter every product that is added to something
is fused with the sum (``support/fused_products.py``), as the compiler does, and matrix products in
fp32 are three of tf32 (``support/tf32_products.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest
import torch
from support.triton_cases import (
    DEVICE,
    EXACT,
    INTERPRETED,
    gradients,
    in_double,
    padding_masks,
    random_qkv,
    reference_lse,
)

from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.triton import block_lists
from bigbird_ds.attention.triton.backend import mask_bytes, triton_attention_with_lse
from bigbird_ds.attention.triton.block_lists import lists_of, pairs_of
from bigbird_ds.attention.triton.ops import block_sparse_backward, block_sparse_forward

HEAD_SIZES = (12, 16, 20, 24, 32, 40, 48, 56, 64, 72, 80, 96, 112, 128)


@pytest.fixture(autouse=True)
def products_of_a_gpu() -> Iterator[None]:
    with contextlib.ExitStack() as changes:
        if INTERPRETED:
            from support.fused_products import fused_products
            from support.tf32_products import tf32_products

            changes.enter_context(fused_products())
            changes.enter_context(tf32_products())
        yield


def compare(pattern: BlockPattern, mask: torch.Tensor, width: int) -> None:
    """Compare context, log-sum-exp and gradients of the kernels with the reference in fp64."""
    inputs = random_qkv(len(mask), pattern.num_heads, pattern.seq_len, width)
    exact = in_double(inputs)
    context, lse = triton_attention_with_lse(*inputs, pattern, mask)
    expected = block_sparse_attention(*exact, pattern, mask, "reference")
    found = [context, *gradients(context, inputs)]
    wanted = [expected, *gradients(expected, exact)]
    for have, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(have.double(), want, **EXACT)
    wanted_lse = reference_lse(*exact[:2], pattern, mask).detach()
    torch.testing.assert_close(lse.double(), wanted_lse, **EXACT)


def test_rows_cut_into_pieces_are_correct_after_padding() -> None:
    """40 blocks, so that the global rows are split as in a real run."""
    assert block_lists.WHOLE < 40
    pattern = BlockPattern.build(40 * 16, 1, 16, 1, "hf", layer=1)
    assert lists_of(pattern, DEVICE).rows.num_slots > 0
    compare(pattern, padding_masks(pattern.seq_len, 16, "a quarter is real"), 64)


def test_gradients_are_right_whatever_is_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_lists, "WHOLE", 4)
    monkeypatch.setattr(block_lists, "PIECE", 2)
    pattern = BlockPattern.build(6 * 16, 1, 16, 0, "uniform", layer=5)
    assert lists_of(pattern, DEVICE).rows.num_slots > 2
    compare(pattern, padding_masks(pattern.seq_len, 16), 16)


@pytest.mark.parametrize("width", HEAD_SIZES)
def test_every_head_size_is_correct_after_padding(width: int) -> None:
    """The rounding error of a product depends on the scale, and so on the head size."""
    pattern = BlockPattern.build(5 * 16, 1, 16, 0)
    mask = padding_masks(pattern.seq_len, 16, "one block of left padding")
    inputs = random_qkv(1, 1, pattern.seq_len, width)
    found = block_sparse_attention(*inputs, pattern, mask, "triton")
    expected = block_sparse_attention(*in_double(inputs), pattern, mask, "reference")
    torch.testing.assert_close(found.double(), expected, **EXACT)


def test_a_part_of_the_keys_that_is_only_padding_adds_nothing() -> None:
    """As on a rank whose keys are all padding: no result, no log-sum-exp, no gradients."""
    pattern, size, half = BlockPattern.build(12 * 16, 1, 16, 1, "hf", layer=1), 16, 6
    mask = padding_masks(pattern.seq_len, size, "a quarter is real")
    assert mask.any() and not mask[:, half * size :].any()
    inputs = q, k, v = random_qkv(1, 1, pattern.seq_len, 64)
    parts, whole = [], pairs_of(pattern)
    for first, last in ((0, half), (half, whole.num_key_blocks)):
        chosen = (first <= whole.key) & (whole.key < last)
        part = {x: getattr(whole, x)[chosen] for x in ("table", "query", "key", "count")}
        part["key"] -= first
        lists = dataclasses.replace(whole, **part, num_key_blocks=last - first).lists(DEVICE)
        keys = slice(first * size, last * size)
        # No query mask: the results of all rows are merged, including padding.
        arguments = (mask_bytes(mask[:, None, keys]), lists.tensors(), lists.num_slots, size)
        parts.append((k[:, :, keys].detach(), v[:, :, keys].detach(), arguments))

    found = [block_sparse_forward(q, k, v, None, *rest, True) for k, v, rest in parts]
    (context, lse), (nothing, no_lse) = found
    assert (nothing == 0).all() and (no_lse == float("-inf")).all()
    expected = block_sparse_attention(*in_double(inputs), pattern, mask, "reference")
    torch.testing.assert_close((context * mask[:, None, :, None]).double(), expected, **EXACT)

    k, v, rest = parts[1]
    grad = torch.ones_like(q)
    for gradient in block_sparse_backward(grad, None, q, k, v, context, lse, *rest):
        assert (gradient == 0).all()
