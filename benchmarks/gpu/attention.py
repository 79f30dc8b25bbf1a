"""Attention on a GPU: correctness, then speed, compared with dense attention and FlexAttention.

Legend: B = batch, H = heads, N = sequence length, D = head dimension.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigbird_ds.attention import BlockPattern, block_sparse_attention
from bigbird_ds.attention.choice import BACKENDS
from bigbird_ds.attention.reference import dense_counts
from bigbird_ds.attention.triton.block_lists import pairs_of
from gpu.report import DeviceTime, Report, kernel_seconds
from gpu.sizes import Sizes

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
# The largest relative distance to double precision, ||found - exact|| / ||exact||.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1.5e-2}


def check(report: Report, sizes: Sizes) -> None:
    """Compare backends with ``reference`` in fp64, at long lengths with ``gathered`` in fp64."""
    backends = [name for name in BACKENDS if name != "reference"]
    styles = (("hf", True), ("hf", False), ("uniform", True))
    for length, (style, training), masked in itertools.product(
        sizes.check_lengths, styles, (False, True)
    ):
        mask = _paddings(length, sizes.block, report.device)["last block"] if masked else None
        for backend, dtype in itertools.product(backends, (torch.bfloat16, torch.float32)):
            setting = f"{style} {'train' if training else 'eval'} {length} {DTYPES[dtype]}"
            setting += " masked" if masked else ""
            pattern = _pattern(sizes, length, style, training)
            report.attempt(
                backend, setting, _distance(report, sizes, backend, setting, pattern, dtype, mask)
            )
    for length in sizes.check_lengths:
        report.attempt("flex", f"uniform {length} bf16", _flex_distance(report, sizes, length))
    for length in (*sizes.check_lengths, *sizes.long_check_lengths):
        pattern, setting = _pattern(sizes, length), f"hf train {length} bf16 padded"
        for name, mask in _paddings(length, sizes.block, report.device).items():
            work = _distance(
                report, sizes, "triton", f"{setting}, {name}", pattern, torch.bfloat16, mask,
                "gathered",
            )  # fmt: skip
            report.attempt("triton", f"{setting}, {name}", work)


def _paddings(length: int, block: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Masks (1, N) bool by name, in which whole blocks are padding, which the kernels skip."""
    bounds = {
        "last block": (0, length - block - 5),
        "half": (0, length // 2 - 3),
        "first block": (block, length),
        "all but one token": (length // 2, length // 2 + 1),
    }
    places = torch.arange(length, device=device)
    return {
        name: ((first <= places) & (places < last))[None] for name, (first, last) in bounds.items()
    }


def _distance(
    report: Report,
    sizes: Sizes,
    backend: str,
    setting: str,
    pattern: BlockPattern,
    dtype: torch.dtype,
    mask: torch.Tensor | None,
    exact: str = "reference",
) -> Callable[[], None]:
    def work() -> None:
        q, k, v = _inputs(report.device, 1, pattern.num_heads, pattern.seq_len, sizes.width, dtype)
        found = _with_gradients(q, k, v, pattern, mask, backend)
        again = _with_gradients(q, k, v, pattern, mask, backend)
        double = [x.detach().double() for x in (q, k, v)]
        wanted = _with_gradients(*double, pattern, mask, exact)
        distances = [
            float((have.double() - want).norm() / want.norm())
            for have, want in zip(found, wanted, strict=True)
        ]
        worst = max(distances)
        same = all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
        right = worst < BOUNDS[dtype]  # False for nan
        note = ("right" if right else "WRONG") + ("" if same else ", other bits the second time")
        report.add(backend, setting, worst, "distance", note)

    return work


def _flex_distance(report: Report, sizes: Sizes, length: int) -> Callable[[], None]:
    """FlexAttention forward, on a pattern without counts above 1, so that both do the same work."""

    def work() -> None:
        pattern = _pattern(sizes, length, "uniform")
        shape = (report.device, 1, sizes.heads, length, sizes.width, torch.bfloat16)
        inputs = _inputs(*shape)
        with torch.no_grad():
            found = _Flex(report, sizes, pattern)(*inputs).double()
            exact = [x.double() for x in inputs]
            wanted = block_sparse_attention(*exact, pattern, backend="reference")
        distance = float((found - wanted).norm() / wanted.norm())
        right = distance < BOUNDS[torch.bfloat16]
        report.add(
            "flex", f"uniform {length} bf16", distance, "distance", "right" if right else "WRONG"
        )

    return work


def measure(report: Report, sizes: Sizes) -> None:
    """Forward and backward of one layer at ``sizes.tokens`` tokens."""
    for length in sizes.lengths:
        batch = max(1, sizes.tokens // length)
        pattern = _pattern(sizes, length)
        tiles = len(pairs_of(pattern).key) / pairs_of(pattern).num_tables
        useful = 4 * tiles * sizes.block**2 * sizes.width * sizes.heads * batch
        for name, attention in _contenders(report, sizes, pattern).items():
            setting = f"B {batch}, N {length:,}"

            def work(name=name, attention=attention, setting=setting, useful=useful, batch=batch,
                     length=length) -> None:  # fmt: skip
                inputs = _inputs(
                    report.device, batch, sizes.heads, length, sizes.width, torch.bfloat16
                )
                inputs = [x.requires_grad_() for x in inputs]
                times = _times(report, attention, inputs)
                forward, whole = (time.device for time in times)
                backward = whole - forward
                report.add(f"{name} host", setting, times[1].host * 1e3, "ms")
                report.add(f"{name} forward", setting, forward * 1e3, "ms")
                report.add(f"{name} forward", setting, useful / forward / 1e12, "TFLOP/s useful")
                report.add(f"{name} backward", setting, backward * 1e3, "ms")
                rate = 2.5 * useful / backward / 1e12
                report.add(f"{name} backward", setting, rate, "TFLOP/s useful")

            report.attempt(name, setting, work)


def sweep(report: Report, sizes: Sizes) -> None:
    """Warps and stages of each kernel at the middle length; the defaults come first."""
    from bigbird_ds.attention.triton import launch

    length = sizes.lengths[len(sizes.lengths) // 2]
    pattern, batch = _pattern(sizes, length), max(1, sizes.tokens // length)
    inputs = [
        x.requires_grad_()
        for x in _inputs(report.device, batch, sizes.heads, length, sizes.width, torch.bfloat16)
    ]

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return block_sparse_attention(q, k, v, pattern, backend="triton")

    choices = [(None, None), *itertools.product((4, 8), range(1, 8))]
    for kernel, (warps, stages) in itertools.product(launch.SETTINGS, choices):
        setting = f"warps {warps}, stages {stages}" if warps else "default"

        def work(kernel=kernel, warps=warps, stages=stages, setting=setting) -> None:
            settings = launch.SETTINGS[kernel]
            settings.warps, settings.stages = warps, stages
            try:
                forward, whole = (time.device for time in _times(report, attention, inputs))
            finally:
                settings.warps = settings.stages = None
            seconds = forward if kernel == "forward" else whole - forward
            report.add(kernel, setting, seconds * 1e3, "ms")

        report.attempt(kernel, setting, work)


def _times(report: Report, attention: Attention, inputs: list[torch.Tensor]) -> list[DeviceTime]:
    """Record the times of forward, and of forward plus backward."""
    weight = torch.randn_like(inputs[0])
    forward = kernel_seconds(lambda: attention(*inputs), report.device)
    whole = kernel_seconds(
        lambda: torch.autograd.grad(attention(*inputs), inputs, weight), report.device
    )
    return [forward, whole]


def _contenders(report: Report, sizes: Sizes, pattern: BlockPattern) -> dict[str, Attention]:
    batch = max(1, sizes.tokens // pattern.seq_len)
    real = torch.ones(batch, pattern.seq_len, dtype=torch.bool, device=report.device)

    def ours(backend: str, mask: torch.Tensor | None = None) -> Attention:
        return lambda q, k, v: block_sparse_attention(q, k, v, pattern, mask, backend)

    def dense(backend: SDPBackend) -> Attention:
        def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            with sdpa_kernel([backend]):
                return F.scaled_dot_product_attention(q, k, v)

        return attention

    return {
        "triton": ours("triton", real),  # as training calls it
        "triton, no mask": ours("triton"),
        "gathered": ours("gathered"),
        "dense cuDNN": dense(SDPBackend.CUDNN_ATTENTION),
        "dense flash": dense(SDPBackend.FLASH_ATTENTION),
        "flex": _Flex(report, sizes, pattern),
    }


class _Flex:
    """FlexAttention as its users call it: the whole pattern as lists of full blocks.

    The lists of global blocks make them n wide, which is why this is a baseline, not a backend. A
    count above 1 is read as 1, so its results are not compared.
    """

    def __init__(self, report: Report, sizes: Sizes, pattern: BlockPattern) -> None:
        self.report, self.sizes, self.pattern = report, sizes, pattern
        self.compiled: Attention | None = None

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if self.compiled is None:
            self.compiled = self._compile()
        return self.compiled(q, k, v)

    def _compile(self) -> Attention:
        from torch.nn.attention.flex_attention import BlockMask, flex_attention

        block, device = self.sizes.block, self.report.device
        seen = (dense_counts(self.pattern, device) > 0)[None]  # (1, H or 1, n, n)
        numbers = seen.sum(-1, dtype=torch.int32)
        order = seen.to(torch.int8).argsort(dim=-1, descending=True, stable=True).int()

        def is_seen(batch, head, query, key):  # full blocks skip it when compiled
            return seen[0, head % seen.shape[1], query // block, key // block]

        mask = BlockMask.from_kv_blocks(
            torch.zeros_like(numbers),
            order,
            numbers,
            order,
            BLOCK_SIZE=(block, block),
            mask_mod=is_seen,
        )
        if device.type == "cpu":  # uncompiled, to exercise the construction
            return lambda q, k, v: flex_attention(q, k, v, block_mask=mask)
        tiles = (
            "BLOCK_M",
            "BLOCK_N",
            "bwd_BLOCK_M1",
            "bwd_BLOCK_N1",
            "bwd_BLOCK_M2",
            "bwd_BLOCK_N2",
        )
        options = dict.fromkeys(tiles, block)
        compiled = torch.compile(flex_attention, dynamic=False)
        return lambda q, k, v: compiled(q, k, v, block_mask=mask, kernel_options=options)


def _pattern(sizes: Sizes, length: int, style: str = "hf", training: bool = True) -> BlockPattern:
    return BlockPattern.build(
        length,
        sizes.heads,
        sizes.block,
        sizes.random_blocks,
        style,
        layer=1,
        training=training,
        max_positions=max(4096, length),
    )


def _inputs(
    device: torch.device, batch: int, heads: int, length: int, width: int, dtype: torch.dtype
) -> list[torch.Tensor]:
    """q, k and v (B, H, N, D), in memory (B, N, H, D), the layout of a layer's projections."""
    generator = torch.Generator(device).manual_seed(length)
    shape = (batch, length, heads, width)
    return [
        torch.randn(shape, generator=generator, device=device).to(dtype).transpose(1, 2)
        for _ in range(3)
    ]


def _with_gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: BlockPattern,
    mask: torch.Tensor | None,
    backend: str,
) -> list[torch.Tensor]:
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    context = block_sparse_attention(*inputs, pattern, mask, backend)
    generator = torch.Generator(q.device).manual_seed(0)
    weight = torch.randn(context.shape, generator=generator, device=q.device)
    weight = weight.bfloat16().to(context.dtype)  # the same numbers in every dtype
    return [context.detach(), *torch.autograd.grad(context, inputs, weight)]
