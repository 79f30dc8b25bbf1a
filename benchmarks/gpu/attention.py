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
from bigbird_ds.attention.device import EXACT_FP32
from bigbird_ds.attention.reference import dense_counts
from bigbird_ds.attention.triton.block_lists import pairs_of
from gpu.device import in_turns, kernel_seconds
from gpu.report import Report
from gpu.sizes import Sizes

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
# The largest relative distance to double precision, ||found - exact|| / ||exact||.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1.5e-2, torch.float16: 4e-3}


def check(report: Report, sizes: Sizes) -> None:
    """Every backend against ``reference`` in fp64; longer ones against ``gathered`` in fp64.

    What training runs comes first, in case time runs out.
    """
    half = sizes.half
    for length in (*sizes.check_lengths, *sizes.long_check_lengths):
        pattern, setting = _pattern(sizes, length), f"hf train {length} {DTYPES[half]} padded"
        for name, mask in _paddings(length, sizes.block, report.device).items():
            work = _distance(
                report, sizes, "triton", f"{setting}, {name}", pattern, half, mask, "gathered"
            )
            report.attempt("triton", f"{setting}, {name}", work)
    for dtype, masked, length, (style, training), backend in itertools.product(
        (half, torch.float32),
        (True, False),
        sizes.check_lengths,
        sizes.styles,
        ("triton", *(name for name in BACKENDS if name not in ("triton", "reference"))),
    ):
        setting = f"{style} {'train' if training else 'eval'} {length} {DTYPES[dtype]}"
        setting += " masked" if masked else ""
        mask = _paddings(length, sizes.block, report.device)["last block"] if masked else None
        pattern = _pattern(sizes, length, style, training)
        work = _distance(report, sizes, backend, setting, pattern, dtype, mask)
        report.attempt(backend, setting, work)
    for length in sizes.check_lengths:
        setting = f"uniform {length} {DTYPES[half]}"
        report.attempt("flex", setting, _flex_distance(report, sizes, length, setting))


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
        chosen = backend.split()[0]
        found = _with_gradients(q, k, v, pattern, mask, chosen)
        again = _with_gradients(q, k, v, pattern, mask, chosen)
        double = [x.detach().double() for x in (q, k, v)]
        wanted = _with_gradients(*double, pattern, mask, exact)
        worst = _worst(found, wanted)
        same = all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
        right = worst < BOUNDS[dtype]  # False for nan
        note = ("right" if right else "WRONG") + ("" if same else ", other bits the second time")
        report.add(backend, setting, worst, "distance", note)

    return work


def _worst(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest relative distance; nan if anything is nan.

    Where exact gradients vanish, as those of the query that sees a single key, rounding is all that
    is left: a result counts as at least a twentieth of the largest.
    """
    sizes = torch.stack([want.norm() for want in wanted])
    distances = [(have.double() - want).norm() for have, want in zip(found, wanted, strict=True)]
    return float((torch.stack(distances) / sizes.clamp(min=float(sizes.max()) / 20)).max())


def _flex_distance(report: Report, sizes: Sizes, length: int, setting: str) -> Callable[[], None]:
    """The peer's forward, on a pattern without counts above 1, so that its time is of this work."""

    def work() -> None:
        pattern = _pattern(sizes, length, "uniform")
        inputs = _inputs(report.device, 1, sizes.heads, length, sizes.width, sizes.half)
        with torch.no_grad():
            found = _Flex(report, sizes, pattern)(*inputs).double()
            exact = [x.double() for x in inputs]
            wanted = block_sparse_attention(*exact, pattern, backend="reference")
        distance = _worst([found], [wanted])
        right = distance < BOUNDS[sizes.half]
        report.add("flex", setting, distance, "distance", "right" if right else "WRONG")

    return work


def measure(report: Report, sizes: Sizes) -> None:
    """Forward and backward of one layer at ``sizes.tokens`` tokens; contenders take turns."""
    shortest, *rest = sizes.lengths
    for length in (shortest, *reversed(rest)):
        _compare(report, sizes, length, _contenders(report, sizes, _pattern(sizes, length)))


def measure_autotuned(report: Report, sizes: Sizes) -> None:
    """FlexAttention with the tiles that its compiler finds best, next to ours; slow to compile."""
    for length in sorted({sizes.lengths[0], sizes.lengths[-1]}, reverse=True):
        torch._dynamo.reset()
        pattern = _pattern(sizes, length)
        flex = _Flex(report, sizes, pattern, autotuned=True)
        ours = _contenders(report, sizes, pattern)["triton"]
        _compare(report, sizes, length, {"triton": ours, "flex autotuned": flex})


def _compare(report: Report, sizes: Sizes, length: int, contenders: dict[str, Attention]) -> None:
    batch, pairs = max(1, sizes.tokens // length), pairs_of(_pattern(sizes, length))
    tiles = len(pairs.key) / pairs.num_tables
    useful = 4 * tiles * sizes.block**2 * sizes.width * sizes.heads * batch
    setting = f"B {batch}, N {length:,}"
    inputs = _inputs(report.device, batch, sizes.heads, length, sizes.width, sizes.half)
    inputs = [x.requires_grad_() for x in inputs]
    weight = torch.randn_like(inputs[0])
    forward, whole = {}, {}
    for name, attention in contenders.items():

        def forward_of(attention=attention) -> torch.Tensor:
            return attention(*inputs)

        def whole_of(attention=attention) -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(attention(*inputs), inputs, weight)

        def work(one=forward_of, other=whole_of) -> None:
            for _ in range(min(2, sizes.repeats)):  # compiles
                one()
                other()

        if report.attempt(name, setting, work):
            forward[name], whole[name] = forward_of, whole_of

    def turns() -> None:
        forwards = in_turns(forward, report.device, sizes.repeats, report.has_time)
        wholes = in_turns(whole, report.device, sizes.repeats, report.has_time)
        for name in forward:
            seconds = {"forward": forwards[name].device}
            seconds["backward"] = wholes[name].device - seconds["forward"]
            hosts = {"forward": forwards[name].host}
            hosts["backward"] = wholes[name].host - hosts["forward"]
            for part, operations in (("forward", useful), ("backward", 2.5 * useful)):
                rate = operations / seconds[part] / 1e12
                report.add(f"{name} {part}", setting, seconds[part] * 1e3, "ms")
                report.add(f"{name} {part}", setting, rate, "TFLOP/s useful")
                report.add(f"{name} {part}", setting, hosts[part] * 1e3, "ms of the host")

    report.attempt("turns", setting, turns)


def sweep(report: Report, sizes: Sizes) -> None:
    """Warps and stages of each kernel at the middle length; the defaults come first."""
    from bigbird_ds.attention.triton import launch

    length = sizes.lengths[len(sizes.lengths) // 2]
    batch = max(1, sizes.tokens // length)
    inputs = [
        x.requires_grad_()
        for x in _inputs(report.device, batch, sizes.heads, length, sizes.width, sizes.half)
    ]
    attention = _contenders(report, sizes, _pattern(sizes, length))["triton"]
    kernels = list(launch.SETTINGS)
    for choice, kernel in itertools.product(sizes.sweep, kernels):
        setting = "default" if choice is None else f"warps {choice[0]}, stages {choice[1]}"

        def work(kernel=kernel, choice=choice, setting=setting) -> None:
            settings = launch.SETTINGS[kernel]
            settings.warps, settings.stages = choice or (None, None)
            try:
                forward, whole = _times(report, sizes, attention, inputs, kernel)
            finally:
                settings.warps = settings.stages = None
            report.add(kernel, setting, (whole - forward) * 1e3, "ms")

        report.attempt(kernel, setting, work)


def measure_fp32(report: Report, sizes: Sizes) -> None:
    """What a product of fp32 costs and how exact it is, both ways that the kernels can compute it,
    next to ``gathered``."""
    usual = EXACT_FP32[0]
    length = sizes.check_lengths[-1]
    pattern = _pattern(sizes, length)
    inputs = _inputs(report.device, 1, sizes.heads, length, sizes.width, torch.float32)
    inputs = [x.requires_grad_() for x in inputs]
    mask = torch.ones(1, length, dtype=torch.bool, device=report.device)
    for products, backend in (("ieee", "triton"), ("tf32x3", "triton"), ("torch's", "gathered")):
        name, setting = f"{backend} fp32", f"N {length:,}, {products} products"

        def whole(backend=backend) -> tuple[torch.Tensor, ...]:
            context = block_sparse_attention(*inputs, pattern, mask, backend)
            return torch.autograd.grad(context, inputs, torch.ones_like(context))

        def work(products=products, whole=whole, name=name, setting=setting) -> None:
            backend = name.split()[0]
            if backend == "triton":
                EXACT_FP32[0] = products
            try:
                seconds = kernel_seconds(whole, report.device, sizes.repeats).device
                report.add(name, setting, seconds * 1e3, "ms, both passes")
                _distance(report, sizes, name, setting, pattern, torch.float32, mask)()
            finally:
                EXACT_FP32[0] = usual

        report.attempt(name, setting, work)


def _times(
    report: Report, sizes: Sizes, attention: Attention, inputs: list[torch.Tensor], kernel: str
) -> tuple[float, float]:
    """Two times whose difference changes with ``kernel``: 0 and the forward, or the forward and
    both passes."""

    def forward() -> torch.Tensor:
        return attention(*inputs)

    def whole() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(attention(*inputs), inputs, torch.ones_like(inputs[0]))

    of_forward = kernel_seconds(forward, report.device, sizes.repeats).device
    if kernel == "forward":
        return 0.0, of_forward
    return of_forward, kernel_seconds(whole, report.device, sizes.repeats).device


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

    def __init__(
        self, report: Report, sizes: Sizes, pattern: BlockPattern, autotuned: bool = False
    ) -> None:
        self.report, self.sizes, self.pattern = report, sizes, pattern
        self.autotuned = autotuned
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
        if self.autotuned:
            tuned = torch.compile(flex_attention, dynamic=False, mode="max-autotune-no-cudagraphs")
            return lambda q, k, v: tuned(q, k, v, block_mask=mask)
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
