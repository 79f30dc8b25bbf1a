"""``train.profile``: a trace and the memory of some steps, and where their time went.

Only rank 0 is profiled, and writes to ``RUN/profile/``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from bigbird_ds.log import logger
from bigbird_ds.models.self_attention import BigBirdSelfAttention
from bigbird_ds.training.ranks.slow_ranks import READING

FOLDER_NAME = "profile"
TRACE_NAME = "trace.json.gz"
OPERATIONS_NAME = "operations.txt"
MEMORY_NAME = "memory.txt"
CUDA_MEMORY_NAME = "memory.pickle"  # what pytorch.org/memory_viz reads; never read here

KINDS = ATTENTION, PRODUCTS, COMMUNICATION, DATA = (
    "attention",
    "matrix products",
    "communication",
    "waiting for data",
)
_ATTENTION_SCOPE = "bigbird_ds attention"
_OPERATORS = "bigbird_ds::"  # all of them are parts of attention
_COMMUNICATION = ("nccl", "gloo:", "c10d::", "record_param_comms")
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::linear", "mkldnn")
_BACKWARD = "autograd::engine::evaluate_function"
_ROWS = 40


class StepProfiler:
    """Profiles the steps ``start`` to ``start + steps - 1``; a failure is a warning.

    Args:
        start, steps: of ``train.profile``. ``steps=0``: nothing is profiled.
        folder: the run folder.
        model: its attention is told from other operations.
    """

    def __init__(self, start: int, steps: int, folder: Path, model: nn.Module) -> None:
        self._first, self._last = start, start + steps - 1
        self._folder, self._model = folder / FOLDER_NAME, model
        self._profile: Any = None
        self._hooks: list[Any] = []
        self._began = 0.0

    def step_begins(self, step: int) -> None:
        if step == self._first <= self._last:
            self._attempt(self._start)

    def step_ends(self, step: int) -> float:
        """The seconds that it took to write the files, if this was the last step."""
        if self._profile is None or step != self._last:
            return 0.0
        began = time.perf_counter()
        self._attempt(self._finish)
        return time.perf_counter() - began

    def _attempt(self, do: Any) -> None:
        try:
            do()
        except Exception as cause:
            logger.warning("profile: not written: %s", cause)
            self._profile = None

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.memory._record_memory_history(max_entries=100_000)
        self._hooks = mark_attention(self._model)
        self._profile = profile(activities=activities, profile_memory=True)
        self._profile.start()
        self._began = time.perf_counter()

    def _finish(self) -> None:
        found, self._profile = self._profile, None
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._began
        found.stop()
        for hook in self._hooks:
            hook.remove()
        on_gpu = torch.cuda.is_available()
        self._folder.mkdir(exist_ok=True)
        found.export_chrome_trace(str(self._folder / TRACE_NAME))
        averages, device = found.key_averages(), "cuda" if on_gpu else "cpu"
        for name, column in (
            (OPERATIONS_NAME, f"self_{device}_time_total"),
            (MEMORY_NAME, f"self_{device}_memory_usage"),
        ):
            table = averages.table(sort_by=column, row_limit=_ROWS)
            (self._folder / name).write_text(table, encoding="utf-8")
        if on_gpu:
            torch.cuda.memory._dump_snapshot(str(self._folder / CUDA_MEMORY_NAME))
            torch.cuda.memory._record_memory_history(enabled=None)
        words = shares_in_words(time_by_kind(found.events(), on_gpu), seconds)
        logger.info(
            "profile of steps %d to %d: %s; see %s", self._first, self._last, words, self._folder
        )


def mark_attention(model: nn.Module) -> list[Any]:
    """Put every attention into a scope of the profiler; returns the hooks, to be removed.

    Not in a compiled layer, where hooks would have it compiled again; its attention is an operator
    of ours.
    """
    hooks: list[Any] = []
    for layer in model.modules():
        if not isinstance(layer, BigBirdSelfAttention):
            continue
        scopes: list[Any] = []

        def enter(module: Any, inputs: Any, scopes: list[Any] = scopes) -> None:
            if not torch.compiler.is_compiling():
                scopes.append(record_function(_ATTENTION_SCOPE).__enter__())

        def leave(module: Any, inputs: Any, output: Any, scopes: list[Any] = scopes) -> None:
            if scopes:
                scopes.pop().__exit__(None, None, None)

        hooks.append(layer.register_forward_pre_hook(enter))
        hooks.append(layer.register_forward_hook(leave, always_call=True))
    return hooks


def time_by_kind(events: Iterable[Any], on_gpu: bool) -> Counter[str]:
    """Seconds by kind of operation; operations of no kind are left out.

    The projections around an attention count as products. A backward operation is of the kind of
    its forward operation, which has the same number in the autograd graph.
    """
    events = list(events)
    numbers = {
        event.sequence_nr
        for event in events
        if event.sequence_nr >= 0 and _is_within_scope(event, _ATTENTION_SCOPE)
    }
    seconds: Counter[str] = Counter()
    for event in events:
        own_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if own_us and (kind := _kind(event, numbers)):
            seconds[kind] += own_us / 1e6
    return seconds


def _kind(event: Any, attention_numbers: set[int]) -> str | None:
    if any(word in event.name for word in _COMMUNICATION):
        return COMMUNICATION
    if _is_within_scope(event, READING):
        return DATA
    if event.name.startswith(_PRODUCTS):
        return PRODUCTS
    ancestor = event
    while ancestor is not None:
        is_backward = ancestor.name.startswith(_BACKWARD)
        if (
            ancestor.name == _ATTENTION_SCOPE
            or ancestor.name.startswith(_OPERATORS)
            or (is_backward and ancestor.sequence_nr in attention_numbers)
        ):
            return ATTENTION
        ancestor = ancestor.cpu_parent
    return PRODUCTS if event.name == "aten::bmm" else None


def _is_within_scope(event: Any, name: str) -> bool:
    while event is not None and event.name != name:
        event = event.cpu_parent
    return event is not None


def shares_in_words(seconds: Counter[str], total_s: float) -> str:
    """``attention 31 %, matrix products 42 %, ..., rest 20 % of 1.23 s``."""
    rest = max(1 - seconds.total() / total_s, 0.0)
    shares = [f"{kind} {seconds[kind] / total_s:.0%}" for kind in KINDS]
    return f"{', '.join(shares)}, rest {rest:.0%} of {total_s:.2f} s"
