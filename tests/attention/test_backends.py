"""Every backend equals the dense reference, and the reference equals a plain softmax."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbird_ds.attention import BlockPattern, block_sparse_attention, gathered
from bigbird_ds.attention.choice import BACKENDS
from bigbird_ds.errors import ConfigError

ANY_DEVICE = [name for name in BACKENDS if name != "triton"]
OTHERS = [name for name in ANY_DEVICE if name != "reference"]


def random_qkv(
    batch: int, heads: int, seq_len: int, width: int, dtype: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seq_len + heads)
    shape = (batch, heads, seq_len, width)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def with_gradients(qkv: list[torch.Tensor], pattern, mask, backend: str) -> list[torch.Tensor]:
    """The context, and the gradients of a fixed weighted sum of it."""
    context = block_sparse_attention(*qkv, pattern, mask, backend)
    weight = torch.linspace(-1, 2, context.numel(), dtype=context.dtype).view_as(context)
    return [context, *torch.autograd.grad((context * weight).sum(), qkv)]


@st.composite
def cases(draw: st.DrawFn) -> tuple[BlockPattern, int, int, torch.Tensor | None]:
    """A random pattern, batch size, head size and mask."""
    block_size = draw(st.sampled_from([1, 2, 4, 8]))
    wanted = draw(st.integers(0, 3))
    blocks = draw(st.integers(2 * wanted + 6, 2 * wanted + 12))
    heads = draw(st.integers(1, 3))
    style = draw(st.sampled_from(["hf", "hf_eval", "google", "uniform", "relay"]))
    pattern = BlockPattern.build(
        blocks * block_size,
        heads,
        block_size,
        wanted,
        style,
        layer=draw(st.integers(0, 5)),
        training=draw(st.booleans()),
    )
    batch = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["none", "lengths", "scattered"]))
    if kind == "none":
        return pattern, batch, draw(st.integers(1, 9)), None
    if kind == "lengths":
        lengths = [draw(st.integers(0, pattern.seq_len)) for _ in range(batch)]
        mask = torch.arange(pattern.seq_len)[None] < torch.tensor(lengths)[:, None]
    else:
        generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        mask = torch.rand(batch, pattern.seq_len, generator=generator) < 0.6
    return pattern, batch, draw(st.integers(1, 9)), mask


@pytest.mark.parametrize("backend", OTHERS)
@settings(max_examples=60, deadline=None, database=None)
@given(case=cases())
def test_backends_equal_the_reference_in_double_precision(backend: str, case) -> None:
    pattern, batch, width, mask = case
    qkv = random_qkv(batch, pattern.num_heads, pattern.seq_len, width)
    expected = with_gradients(qkv, pattern, mask, "reference")
    found = with_gradients(qkv, pattern, mask, backend)
    for want, have in zip(expected, found, strict=True):
        assert torch.isfinite(have).all()
        torch.testing.assert_close(have, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("style", ["hf", "uniform"])
def test_the_reference_is_a_softmax_over_a_multiset(style: str) -> None:
    """Compare with one softmax per row over the keys, each repeated as often as it counts."""
    pattern = BlockPattern.build(80, 1, 8, 2, style, layer=2)
    (q, k, v), n = random_qkv(1, 1, 80, 5), 10
    mask = torch.ones(1, 80, dtype=torch.bool)
    mask[0, 60:66] = False
    context = block_sparse_attention(q, k, v, pattern, mask, "reference")
    for token in range(80):
        row = token // 8
        if row in (0, n - 1):
            blocks = list(range(n))
        else:
            table = zip(pattern.key_blocks[0, row - 1], pattern.key_counts[0, row - 1], strict=True)
            blocks = [int(block) for block, count in table for _ in range(count)]
        keys = [8 * block + place for block in blocks for place in range(8)]
        keys = [key for key in keys if mask[0, key]]
        weights = torch.softmax(q[0, 0, token] @ k[0, 0, keys].T / math.sqrt(5), dim=-1)
        expected = weights @ v[0, 0, keys] if mask[0, token] else torch.zeros(5)
        torch.testing.assert_close(context[0, 0, token], expected.double(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ANY_DEVICE)
def test_padding_gets_zeros_and_a_sample_of_only_padding_stays_finite(backend: str) -> None:
    pattern = BlockPattern.build(96, 2, 8, 1)
    qkv = random_qkv(2, 2, 96, 4, torch.float32)
    mask = torch.ones(2, 96)
    mask[0, 70:] = 0
    mask[1] = 0
    context, *gradients = with_gradients(qkv, pattern, mask, backend)
    assert (context[0, :, 70:] == 0).all() and (context[1] == 0).all()
    assert (context[0, :, :70] != 0).any(-1).all()
    for gradient in gradients:
        assert torch.isfinite(gradient).all()
        assert (gradient[1] == 0).all()


@pytest.mark.parametrize("backend", ANY_DEVICE)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64, torch.float32])
def test_a_mask_may_be_of_any_type(backend: str, dtype: torch.dtype) -> None:
    pattern = BlockPattern.build(96, 2, 8, 1)
    qkv = random_qkv(1, 2, 96, 4)
    mask = torch.arange(96)[None] < 80
    expected = block_sparse_attention(*qkv, pattern, mask, "reference")
    found = block_sparse_attention(*qkv, pattern, mask.to(dtype), backend)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("dtype,bound", [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_half_precision_stays_near_the_reference(
    backend: str, dtype: torch.dtype, bound: float
) -> None:
    pattern = BlockPattern.build(192, 2, 16, 3, training=False)
    exact = random_qkv(1, 2, 192, 8)
    mask = torch.arange(192)[None] < 150
    expected = with_gradients(exact, pattern, mask, "reference")
    halves = [tensor.detach().to(dtype).requires_grad_() for tensor in exact]
    found = with_gradients(halves, pattern, mask, backend)
    for want, have in zip(expected, found, strict=True):
        assert have.dtype == dtype
        assert (have.double() - want).norm() < bound * want.norm()


def test_gradients_of_a_key_that_many_chunks_read_are_summed_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sum in bf16 stops growing after 256 equal parts, as bf16 cannot represent 257."""
    monkeypatch.setattr(gathered, "_CHUNK_SCORES_CPU", 1)  # a row at a time
    blocks = 400
    pattern = BlockPattern.build(blocks, 1, 1, 0, "uniform")
    q = torch.zeros(1, 1, blocks, 2, dtype=torch.bfloat16)
    v = torch.zeros_like(q).requires_grad_()
    context = block_sparse_attention(q, q, v, pattern, None, "gathered")
    (gradient,) = torch.autograd.grad(context.float().sum(), v)
    # Every row reads the first block: two of n blocks, two of four, the others of five.
    expected = 2 / blocks + 2 / 4 + (blocks - 4) / 5
    assert float(gradient[0, 0, 0, 0]) == pytest.approx(expected, rel=2**-7)


@pytest.mark.parametrize("backend", ANY_DEVICE)
def test_strided_views_give_the_same_as_their_copies(backend: str) -> None:
    pattern = BlockPattern.build(96, 2, 8, 1)
    wide = torch.randn(2, 96, 2, 12, dtype=torch.float64)
    q, k, v = (part.transpose(1, 2) for part in wide.split(4, dim=-1))
    views = block_sparse_attention(q, k, v, pattern, None, backend)
    copies = block_sparse_attention(
        q.contiguous(), k.contiguous(), v.contiguous(), pattern, None, backend
    )
    torch.testing.assert_close(views, copies, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", ANY_DEVICE)
def test_a_pattern_first_used_in_inference_mode_works_in_training_too(backend: str) -> None:
    qkv = random_qkv(1, 2, 96, 4)
    with torch.inference_mode():
        # a separate layer, so that no other test has put this pattern on the device
        pattern = BlockPattern.build(96, 2, 8, 1, layer=77 + len(backend))
        block_sparse_attention(*qkv, pattern, None, backend)
    for gradient in with_gradients(qkv, pattern, None, backend)[1:]:
        assert (gradient != 0).any()


def test_autocast_does_not_change_the_precision_of_what_is_given() -> None:
    pattern = BlockPattern.build(96, 2, 8, 1)
    qkv = random_qkv(1, 2, 96, 4, torch.float32)
    plain = with_gradients(qkv, pattern, None, "auto")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = with_gradients(qkv, pattern, None, "auto")
    for want, have in zip(plain, cast, strict=True):
        assert torch.equal(want, have)


def test_wrong_shapes_and_names_are_refused() -> None:
    pattern = BlockPattern.build(96, 2, 8, 1)
    q, k, v = random_qkv(1, 2, 96, 4)
    with pytest.raises(ConfigError, match="unknown attention backend") as caught:
        block_sparse_attention(q, k, v, pattern, backend="gatherd")
    assert "'gathered'" in str(caught.value.seen)
    with pytest.raises(ConfigError, match="k, v and the pattern are inconsistent"):
        block_sparse_attention(q[:, :1], k[:, :1], v[:, :1], pattern)
    with pytest.raises(ConfigError, match="k, v and the pattern are inconsistent"):
        block_sparse_attention(q, k[:, :, :48], v, pattern)
    with pytest.raises(ConfigError, match="mask does not match"):
        block_sparse_attention(q, k, v, pattern, torch.ones(1, 95))


def test_integers_are_refused() -> None:
    pattern = BlockPattern.build(96, 2, 8, 1)
    numbers = torch.ones(1, 2, 96, 4, dtype=torch.int64)
    with pytest.raises(ConfigError, match="floating-point dtype"):
        block_sparse_attention(numbers, numbers, numbers, pattern)
