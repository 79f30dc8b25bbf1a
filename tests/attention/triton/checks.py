"""Properties of the Triton kernels.

test_kernels.py runs them under Triton's interpreter, which must be chosen before Triton is
imported; on a machine with a GPU run them directly:

    python -m pytest tests/attention/triton/checks.py

The interpreter is slow: shapes are tiny, and lists of blocks are split early so that partial
results occur. It multiplies bf16 as integers, so half precision is checked in fp16 here and in bf16
on a GPU (test_gpu.py).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.tiny_models import tiny_bigbird
from support.triton_cases import (
    DEVICE,
    EXACT,
    INTERPRETED,
    dense_bias,
    gradients,
    in_double,
    random_qkv,
    reference_lse,
)
from torch.utils.checkpoint import checkpoint

from bigbird_ds import BigBirdForMaskedLM
from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.checkpointing import checkpoint_contexts
from bigbird_ds.attention.graph import attention_in_graph
from bigbird_ds.attention.recipe import PatternRecipe
from bigbird_ds.attention.triton import block_lists
from bigbird_ds.attention.triton import forward as triton_forward
from bigbird_ds.attention.triton.backend import mask_bytes, triton_attention_with_lse
from bigbird_ds.attention.triton.block_lists import BlockPairs, lists_of, pairs_of
from bigbird_ds.attention.triton.ops import block_sparse_backward, block_sparse_forward

if INTERPRETED:
    block_lists.WHOLE, block_lists.PIECE = 8, 4

# heads, block size, head size, blocks, random blocks, style, training, mask
CASES = [
    (2, 16, 16, 10, 1, "hf", True, "none"),
    (1, 16, 32, 9, 3, "hf", False, "lengths"),
    (2, 16, 16, 11, 2, "google", True, "scattered"),
    (3, 16, 16, 9, 1, "uniform", True, "one sample is only padding"),
    (1, 16, 16, 10, 0, "hf", True, "lengths"),
    (1, 32, 64, 8, 1, "hf_eval", True, "scattered"),
    (1, 64, 64, 9, 1, "uniform", True, "lengths"),
    (1, 16, 16, 32, 1, "relay", True, "lengths"),
    (1, 64, 128, 5, 1, "hf_eval", True, "none"),
    (1, 16, 12, 5, 0, "uniform", True, "none"),  # a number of heads that is not a power of two
    (2, 16, 48, 9, 0, "hf", True, "lengths"),
]


def make_pattern(case) -> BlockPattern:
    heads, size, _, blocks, wanted, style, training, _ = case
    return BlockPattern.build(blocks * size, heads, size, wanted, style, layer=1, training=training)


def make_mask(kind: str, batch: int, seq_len: int) -> torch.Tensor | None:
    places = torch.arange(seq_len, device=DEVICE)
    if kind == "none":
        return None
    if kind == "scattered":
        generator = torch.Generator().manual_seed(1)
        return (torch.rand(batch, seq_len, generator=generator) < 0.6).to(DEVICE)
    shortest = 0 if kind == "one sample is only padding" else seq_len // 3
    lengths = torch.linspace(shortest, seq_len - 5, batch, device=DEVICE)
    return places[None] < lengths[:, None]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_results_gradients_and_lse_equal_the_reference_in_double_precision(case) -> None:
    pattern, batch = make_pattern(case), 1 if case[-1] in ("none", "scattered") else 2
    mask = make_mask(case[-1], batch, pattern.seq_len)
    inputs = random_qkv(batch, case[0], pattern.seq_len, case[2])
    exact = in_double(inputs)
    # Whatever a kernel does not write is nan.
    torch.use_deterministic_algorithms(True)
    try:
        context, lse = triton_attention_with_lse(*inputs, pattern, mask)
        found = [context, *gradients(context, inputs)]
    finally:
        torch.use_deterministic_algorithms(False)
    expected = block_sparse_attention(*exact, pattern, mask, "reference")
    wanted = [expected, *gradients(expected, exact)]
    for have, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(have.double(), want, **EXACT)
    if mask is not None:
        assert (context.transpose(1, 2)[mask == 0] == 0).all()
    wanted_lse = reference_lse(*exact[:2], pattern, mask)
    torch.testing.assert_close(lse.double(), wanted_lse.detach(), **EXACT)


def test_half_precision_stays_near_the_reference() -> None:
    case = (1, 16, 32, 9, 3, "hf", False, "lengths")
    pattern, mask = make_pattern(case), make_mask("lengths", 1, 144)
    inputs = random_qkv(1, 1, 144, 32, torch.float16)
    exact = in_double(inputs)
    context = block_sparse_attention(*inputs, pattern, mask, "triton")
    expected = block_sparse_attention(*exact, pattern, mask, "reference")
    found, wanted = gradients(context, inputs), gradients(expected, exact)
    for have, want in zip([context, *found], [expected, *wanted], strict=True):
        assert have.dtype == torch.float16
        assert (have.double() - want).norm() < 4e-3 * want.norm()


def test_a_context_in_fp32_is_not_rounded_to_the_dtype_of_its_queries() -> None:
    *inputs, bits, key_bits, lists, slots, size, _ = op_arguments(masked=True)
    halves = [x.detach().half().requires_grad_() for x in inputs]
    context, lse = block_sparse_forward(*halves, bits, key_bits, lists, slots, size, True)
    rounded, same_lse = block_sparse_forward(*halves, bits, key_bits, lists, slots, size, False)
    assert context.dtype == torch.float32 and torch.equal(lse, same_lse)
    assert not torch.equal(context, rounded) and torch.equal(context.half(), rounded)
    for gradient in gradients(context, halves):
        assert gradient.dtype == torch.float16
    with torch.no_grad():
        ones = torch.ones_like(rounded)
        arguments = (*halves, context, lse, key_bits, lists, slots, size)
        grad_q, grad_k, _ = block_sparse_backward(ones, None, *arguments)
    assert grad_q.dtype == torch.float32 and grad_k.dtype == torch.float16


def test_the_gradient_of_the_lse_is_right() -> None:
    pattern, mask = make_pattern(CASES[4]), make_mask("lengths", 1, 160)
    inputs = random_qkv(1, 1, 160, 16)
    exact = in_double(inputs)
    real = mask[:, None, :].expand(1, 1, -1)
    context, lse = triton_attention_with_lse(*inputs, pattern, mask)
    expected = block_sparse_attention(*exact, pattern, mask, "reference")
    want_lse = reference_lse(*exact[:2], pattern, mask)
    found = torch.autograd.grad(lse[real].square().sum() + context.sum(), inputs)
    wanted = torch.autograd.grad(want_lse[real].square().sum() + expected.sum(), exact)
    for have, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(have.double(), want, **EXACT)


def test_parts_of_the_keys_merge_by_their_lse() -> None:
    """As on ranks that hold parts of a sequence: different queries and keys, then a merge."""
    pattern, size, half = make_pattern(CASES[3]), 16, 4
    mask = make_mask("lengths", 1, pattern.seq_len)
    q, k, v = inputs = random_qkv(1, 3, pattern.seq_len, 16)
    whole = pairs_of(pattern)
    bits, parts = mask_bytes(mask), []
    for first, last in ((0, half), (half, whole.num_key_blocks)):
        chosen = (first <= whole.key) & (whole.key < last)
        keys = slice(first * size, last * size)
        pairs = dataclasses.replace(
            whole,
            table=whole.table[chosen],
            query=whole.query[chosen],
            key=whole.key[chosen] - first,
            count=whole.count[chosen],
            num_key_blocks=last - first,
        )
        lists = pairs.lists(DEVICE)
        part_bits = bits[:, None, keys].contiguous()
        work = (lists.tensors(), lists.num_slots, size, False)
        parts.append(block_sparse_forward(q, k[:, :, keys], v[:, :, keys], bits, part_bits, *work))
    contexts, lses = zip(*parts, strict=True)
    padding = (mask == 0)[:, None]
    shares = torch.stack(lses).masked_fill(padding, 0.0).softmax(0)[..., None]
    merged = (torch.stack(contexts) * shares).sum(0)
    exact = in_double(inputs)
    expected = block_sparse_attention(*exact, pattern, mask, "reference")
    torch.testing.assert_close(merged.double(), expected, **EXACT)
    real = mask[0]
    found = gradients(merged[:, :, real], inputs)
    wanted = gradients(expected[:, :, real], exact)
    for have, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(have.double(), want, **EXACT)


def test_each_head_may_have_a_mask_of_its_own_and_a_row_that_sees_no_key_stays_finite() -> None:
    pattern = BlockPattern.build(9 * 16, 2, 16, 0)
    lists, inputs = lists_of(pattern, DEVICE), random_qkv(2, 2, pattern.seq_len, 16)
    generator = torch.Generator().manual_seed(2)
    seen = torch.rand(2, 2, pattern.seq_len, generator=generator) < 0.7
    seen[0, 0, 32:50] = False
    seen[0, 1, 64:96] = False
    seen[1, 1] = False  # as on a rank with only padding of a sample
    seen = seen.to(DEVICE)
    work = (lists.tensors(), lists.num_slots, pattern.block_size, False)
    context, lse = block_sparse_forward(*inputs, None, mask_bytes(seen), *work)
    assert context.isfinite().all() and (context[1, 1] == 0).all()
    assert (lse == float("-inf")).nonzero().tolist() == [
        [1, 1, place] for place in range(pattern.seq_len)
    ]

    exact = in_double(inputs)
    scores = exact[0] @ exact[1].transpose(-1, -2) * 16**-0.5 + dense_bias(pattern)
    weights = scores.masked_fill(~seen[:, :, None], -1e30).softmax(-1)
    somewhere = torch.ones(2, 2, dtype=torch.bool, device=DEVICE)
    somewhere[1, 1] = False
    expected = (weights @ exact[2])[somewhere]
    found, wanted = gradients(context[somewhere], inputs), gradients(expected, exact)
    for have, want in zip([context[somewhere], *found], [expected, *wanted], strict=True):
        torch.testing.assert_close(have.double(), want, **EXACT)


def test_a_rank_without_middle_rows_has_an_empty_result_and_zero_gradients() -> None:
    q, k, v = random_qkv(1, 2, 48, 16)
    q = q[:, :, :0]
    nothing = np.zeros(0, dtype=np.int64)
    lists = BlockPairs(nothing, nothing, nothing, nothing, 2, 0, 3).lists(DEVICE)
    key_bits = torch.ones(1, 2, 48, dtype=torch.uint8, device=DEVICE)
    query_bits = key_bits[:, 0, :0].contiguous()
    context, _ = block_sparse_forward(
        q, k, v, query_bits, key_bits, lists.tensors(), lists.num_slots, 16, False
    )
    assert context.shape == (1, 2, 0, 16)
    for gradient in torch.autograd.grad(context.sum(), (k, v)):
        assert gradient.shape == k.shape and (gradient == 0).all()


def test_slices_of_one_projection_give_the_same_bits_as_copies_and_the_result_needs_no_copy() -> (
    None
):
    pattern = make_pattern(CASES[0])
    projected = torch.randn(1, 160, 3, 2, 16, device=DEVICE)
    views = [x.transpose(1, 2).requires_grad_() for x in projected.unbind(2)]
    copies = [x.detach().contiguous().requires_grad_() for x in views]
    assert not views[0].is_contiguous()
    from_views = block_sparse_attention(*views, pattern, None, "triton")
    from_copies = block_sparse_attention(*copies, pattern, None, "triton")
    assert torch.equal(from_views, from_copies)
    assert from_views.transpose(1, 2).is_contiguous()
    for one, other in zip(
        gradients(from_views, views), gradients(from_copies, copies), strict=True
    ):
        assert torch.equal(one, other)


def test_the_same_input_gives_the_same_bits() -> None:
    pattern, mask = make_pattern(CASES[4]), make_mask("scattered", 1, 160)
    inputs = random_qkv(1, 1, 160, 16)
    runs = []
    for _ in range(2):
        context = block_sparse_attention(*inputs, pattern, mask, "triton")
        runs.append([context, *gradients(context, inputs)])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def op_arguments(masked: bool):
    pattern = BlockPattern.build(9 * 16 if masked else 5 * 16, 1, 16, 0)  # with and without splits
    lists = lists_of(pattern, DEVICE)
    mask = make_mask("lengths", 1, pattern.seq_len) if masked else None
    bits = None if mask is None else mask_bytes(mask)
    key_bits = None if bits is None else bits[:, None]
    q, k, v = random_qkv(1, 1, pattern.seq_len, 16)
    return q, k, v, bits, key_bits, lists.tensors(), lists.num_slots, pattern.block_size, masked


@pytest.mark.parametrize("masked", [False, True])
def test_the_operators_pass_the_checks_of_torch(masked: bool) -> None:
    arguments = op_arguments(masked)
    # The schema, the registration of the gradients and the fake implementations. What is traced
    # with symbolic shapes keeps fp32 results within 1e-4, not bits.
    torch.library.opcheck(torch.ops.bigbird_ds.block_sparse_forward.default, arguments)
    q, k, v, _, bits, *rest, _ = arguments
    with torch.no_grad():
        out, lse = block_sparse_forward(*arguments)
        torch.library.opcheck(
            torch.ops.bigbird_ds.block_sparse_backward.default,
            (torch.ones_like(out), None, q, k, v, out, lse, bits, *rest),
        )


def test_compiled_code_holds_the_operator_as_one_call() -> None:
    arguments = op_arguments(masked=True)

    def scaled(q, k, v):
        return block_sparse_forward(q, k, v, *arguments[3:])[0] * 2

    compiled = torch.compile(scaled, backend="aot_eager", fullgraph=True)
    inputs = list(arguments[:3])
    one, other = scaled(*inputs), compiled(*inputs)
    assert torch.equal(one, other)
    for have, want in zip(gradients(other, inputs), gradients(one, inputs), strict=True):
        assert torch.equal(have, want)


@pytest.mark.skipif(not INTERPRETED, reason="a GPU has the real limit: test_gpu.py")
def test_batch_times_heads_may_exceed_the_short_axes_of_a_grid(monkeypatch) -> None:
    """A card allows 65,535 programs on the second and third axis; here they allow 5."""
    from triton.runtime.interpreter import InterpretedFunction

    real_run = InterpretedFunction.run

    def limited(self, *arguments, grid, **options):
        assert all(size <= 5 for size in grid[1:])
        return real_run(self, *arguments, grid=grid, **options)

    monkeypatch.setattr(InterpretedFunction, "run", limited)
    monkeypatch.setattr(block_lists, "WHOLE", 4)
    pattern = BlockPattern.build(5 * 16, 2, 16, 0, "uniform", layer=1)
    assert pairs_of(pattern).lists(DEVICE).rows.num_slots
    inputs = random_qkv(3, 2, pattern.seq_len, 16)
    exact = in_double(inputs)
    context = block_sparse_attention(*inputs, pattern, None, "triton")
    expected = block_sparse_attention(*exact, pattern, None, "reference")
    found, wanted = gradients(context, inputs), gradients(expected, exact)
    for have, want in zip([context, *found], [expected, *wanted], strict=True):
        torch.testing.assert_close(have.double(), want, **EXACT)


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    pattern, inputs = BlockPattern.build(80, 1, 16, 0), random_qkv(1, 1, 80, 16)
    context = block_sparse_attention(*inputs, pattern, None, "triton")
    (grad,) = torch.autograd.grad(context.square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.fixture
def launches(monkeypatch) -> list[int]:
    """Grows with every launch of the forward kernel."""
    launches: list[int] = []
    real_forward = triton_forward.forward

    def counted(*arguments):
        launches.append(1)
        return real_forward(*arguments)

    monkeypatch.setattr(triton_forward, "forward", counted)
    return launches


def test_the_operator_of_graphs_runs_the_same_kernels(launches) -> None:
    pattern, mask = make_pattern(CASES[0]), make_mask("lengths", 1, 160)
    inputs = random_qkv(
        1, 2, 160, 24
    )  # not a power of two: its gradients pass through zeros as well
    recipe = PatternRecipe(2, 16, 1, "hf", layer=1, training=True, max_positions=4096)
    assert recipe.build(160) is pattern
    found = attention_in_graph(*inputs, recipe.as_tensor(), mask)
    assert len(launches) == 1
    wanted = block_sparse_attention(*inputs, pattern, mask, "triton")
    assert torch.equal(found, wanted)
    for one, other in zip(gradients(found, inputs), gradients(wanted, inputs), strict=True):
        assert torch.equal(one, other)


def test_checkpointing_computes_the_rest_again_but_not_attention(launches) -> None:
    pattern = BlockPattern.build(5 * 16, 1, 16, 0)
    (x, _, _), projections = random_qkv(1, 1, 80, 16), []

    def layer(x):
        projections.append(1)
        return block_sparse_attention(x * 2, x.sin(), x.cos(), pattern, None, "triton").exp()

    plain = torch.autograd.grad(layer(x).sum(), x)[0]
    projections.clear()
    launches.clear()
    result = checkpoint(layer, x, use_reentrant=False, context_fn=checkpoint_contexts(x))
    saved = torch.autograd.grad(result.sum(), x)[0]
    assert (len(projections), len(launches)) == (2, 1)
    assert torch.equal(saved, plain)


def small_model() -> BigBirdForMaskedLM:
    config = tiny_bigbird(num_attention_heads=1, num_random_blocks=0, hidden_dropout_prob=0.0)
    torch.manual_seed(0)
    return BigBirdForMaskedLM(config).to(DEVICE).train()


def step(model: BigBirdForMaskedLM) -> dict[str, torch.Tensor]:
    """The loss on a batch with padding, and the gradient of each parameter."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 40, (1, 6 * 16), generator=generator).to(DEVICE)
    mask = (torch.arange(6 * 16, device=DEVICE) < 70).long()[None]
    model.zero_grad()
    loss = model(ids, mask, labels=ids).loss
    loss.backward()
    gradients = {name: x.grad for name, x in model.named_parameters() if x.grad is not None}
    assert len(gradients) > 30
    return {"loss": loss.detach(), **gradients}


def test_a_checkpointed_model_launches_one_forward_a_layer(launches) -> None:
    model = small_model()
    plain = step(model)
    launches.clear()
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(step(model), plain, rtol=0, atol=0)
    assert len(launches) == model.config.num_hidden_layers


def test_a_compiled_model_that_runs_the_kernels_equals_the_model_in_double_precision(
    launches,
) -> None:
    exact = step(small_model().double())
    assert not launches  # the kernels do not support fp64
    model = small_model()
    model.compile_layers()
    found = step(model)
    assert len(launches) == model.config.num_hidden_layers
    in_fp64 = {name: value.double() for name, value in found.items()}
    torch.testing.assert_close(in_fp64, exact, rtol=1e-4, atol=1e-6)
