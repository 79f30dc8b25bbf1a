"""``train.profile``: files of some steps, and what the log says of their time."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support.distributed import run_distributed
from support.runs import changed, train_one
from support.tiny_models import tiny_bigbird
from torch.profiler import ProfilerActivity, profile, record_function

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.bigbird.masked_lm import BigBirdForMaskedLM
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.profile import (
    ATTENTION,
    DATA,
    KINDS,
    PRODUCTS,
    mark_attention,
    shares_in_words,
    time_by_kind,
)
from bigbird_ds.training.ranks.slow_ranks import READING


def test_attention_has_its_backward_but_not_its_projections() -> None:
    model = BigBirdForMaskedLM(tiny_bigbird())
    ids = torch.randint(8, model.config.vocab_size, (2, 128))
    hooks = mark_attention(model)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        with record_function(READING):
            torch.ones(1000).sum()
        model(ids, labels=ids).loss.backward()
    for hook in hooks:
        hook.remove()
    assert not any(module._forward_hooks for module in model.modules())
    events = list(found.events())
    seconds = time_by_kind(events, on_gpu=False)
    assert set(seconds) == {ATTENTION, PRODUCTS, DATA}

    def kinds(name: str) -> set[str]:
        return {
            kind
            for event in events
            if event.name == name and event.self_cpu_time_total
            for kind in time_by_kind([event], on_gpu=False) or {"rest"}
        }

    assert kinds("aten::addmm") == {PRODUCTS}
    assert kinds("_Rows") == {ATTENTION} and kinds("aten::gelu") == {"rest"}
    backward = [event for event in events if event.name == "_RowsBackward"]
    without = [event for event in events if event not in backward]
    assert backward
    assert time_by_kind(without, on_gpu=False)[ATTENTION] < seconds[ATTENTION]


def test_the_shares_are_given_in_words() -> None:
    seconds = Counter({ATTENTION: 0.5, PRODUCTS: 1.0})
    assert shares_in_words(seconds, 2.0) == (
        "attention 25%, matrix products 50%, communication 0%, waiting for data 0%, rest 25% of "
        "2.00 s"
    )


def test_steps_to_profile_beyond_the_run_are_refused(run_settings: dict[str, Any]) -> None:
    beyond = changed(run_settings, **{"train.profile": {"start": 3, "steps": 3}})
    with pytest.raises(ConfigError, match="not all in the run"):
        check_run_config(beyond, "test")


@pytest.mark.launch
def test_a_run_writes_a_trace_of_the_steps_and_the_shares(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = changed(run_settings, **{"train.profile": {"start": 2, "steps": 2}})
    run_distributed(train_one, 2, settings)
    folder = tmp_path / "run" / "profile"
    names = {path.name for path in folder.iterdir()}
    assert names == {"trace.json.gz", "operations.txt", "memory.txt"}
    with gzip.open(folder / "trace.json.gz", "rt") as stream:
        trace = json.load(stream)["traceEvents"]
    assert sum(event["name"] == READING for event in trace) == 2  # one a step
    log = (tmp_path / "run" / "logs" / "rank-0.log").read_text()
    (line,) = re.findall(r"profile of steps 2 to 3: (.*) of \d+\.\d\d s; see", log)
    shares = {name: int(share) for name, share in re.findall(r"([a-z ]+) (\d+)%", line)}
    assert [name.strip() for name in shares] == [*KINDS, "rest"]
    assert shares[ATTENTION] > 0 and 95 <= sum(shares.values()) <= 105
