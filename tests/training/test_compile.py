"""``train.compile``: the same losses as without, under ZeRO and with checkpointing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.distributed import run_distributed
from support.runs import changed, losses, train_and_count_graphs

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import check_run_config

STAGE = "deepspeed.zero_optimization.stage"
PERSIST = "deepspeed.zero_optimization.stage3_param_persistence_threshold"
CHECKPOINTING = "train.activation_checkpointing"


@pytest.mark.launch
def test_compiled_layers_give_the_same_losses_and_share_one_graph(
    run_settings: dict[str, Any], tmp_path: Path
) -> None:
    compiled = {"train.compile": True}
    layouts = {
        "plain": {STAGE: 1},
        "compiled, zero 1": {**compiled, STAGE: 1},
        "compiled, zero 3, checkpointing": {**compiled, STAGE: 3, PERSIST: 0, CHECKPOINTING: True},
    }
    runs = [
        changed(run_settings, **layout, output=str(tmp_path / name.replace(" ", "_")))
        for name, layout in layouts.items()
    ]
    results, graphs = run_distributed(train_and_count_graphs, 2, runs)[0]
    plain, *others = results
    for name, lines in zip(list(layouts)[1:], others, strict=True):
        assert losses(lines) == pytest.approx(losses(plain), rel=1e-4), name
        norms = [line["grad_norm"] for line in plain]
        assert [line["grad_norm"] for line in lines] == pytest.approx(norms, rel=1e-3), name
    assert graphs == 2  # one per run, shared by its two layers


def test_ranks_that_share_sequences_refuse_compiled_layers(run_settings: dict[str, Any]) -> None:
    settings = changed(run_settings, **{"train.compile": True, "parallel.sequence": 2})
    with pytest.raises(ConfigError, match="does not support sequence parallelism"):
        check_run_config(settings, "test")
