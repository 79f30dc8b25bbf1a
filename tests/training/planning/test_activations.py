"""What a step allocates, counted before anything runs, is what it allocates."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.corpus import TINY_MODEL
from support.distributed import run_distributed
from support.pegasus_corpus import TINY_PEGASUS_RUN
from support.runs import changed

from bigbird_ds import BigBirdConfig, BigBirdPegasusConfig
from bigbird_ds.attention import gathered
from bigbird_ds.models import cross_entropy
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.planning import activations
from bigbird_ds.training.planning.activations import count_step, example_batch, step_bytes
from bigbird_ds.training.ranks.distributed import Ranks

SETTINGS: dict[str, Any] = {
    "model": {},
    "data": {"train": "shards", "tokenizer": "tokenizer", "sequence_length": 128},
    "batch": {"sequences": 2, "micro": 2},
    "schedule": {"warmup_steps": 0},
    "train": {"steps": 1},
    "output": "run",
}
BIGBIRD = changed(SETTINGS, **{"objective.name": "mlm_nsp", "model": TINY_MODEL})
PEGASUS = changed(
    SETTINGS,
    **{
        "objective.name": "gap_sentences",
        "objective.target_length": 47,
        "objective.input_mask_fraction": 0.1,
        "model": TINY_PEGASUS_RUN,
    },
)


def model_config_of(settings: dict[str, Any]) -> Any:
    family = BigBirdPegasusConfig if settings is PEGASUS else BigBirdConfig
    return family.from_dict({**settings["model"], "vocab_size": 500})


def sharing(settings: dict[str, Any], size: int) -> Any:
    return check_run_config(changed(settings, **{"parallel.sequence": size}), "test")


def really_kept(ranks: Ranks, runs: list[tuple[Any, Any]]) -> list[int]:
    counts = []
    for config, model_config in runs:
        model = config.objective.kind.model_class(model_config).train()
        parallel = ranks.sharing_sequences(ranks.world_size).parallel
        getattr(model, model.base_prefix).set_sequence_parallel(parallel)
        step = count_step(model, example_batch(config), config.objective.kind.losses)
        counts.append(step.kept)
    return counts


@pytest.mark.launch
def test_a_rank_that_shares_sequences_keeps_what_is_counted_for_it() -> None:
    runs = [(sharing(settings, 2), model_config_of(settings)) for settings in (BIGBIRD, PEGASUS)]
    _, second = run_distributed(really_kept, 2, runs)
    assert second == [step_bytes(config, model_config).kept for config, model_config in runs]


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("settings", [BIGBIRD, PEGASUS], ids=["bigbird", "pegasus"])
def test_ranks_that_share_keep_nearly_their_part(
    settings: dict[str, Any], checkpoints: bool
) -> None:
    model_config = model_config_of(settings).replace(max_position_embeddings=4096)
    long = changed(
        settings,
        **{"data.sequence_length": 4096, "train.activation_checkpointing": checkpoints},
    )
    alone, shared = (step_bytes(sharing(long, size), model_config).kept for size in (1, 4))
    assert 3.3 < alone / shared < 4


def test_of_layers_that_are_computed_again_one_is_counted_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the backward pass one layer at a time has its widest tensors, for any number of layers."""
    config = check_run_config(changed(BIGBIRD, **{"train.activation_checkpointing": True}), "test")
    wide = model_config_of(BIGBIRD).replace(intermediate_size=2048)
    monkeypatch.setattr(activations, "_COUNTED_LAYERS", 5)
    few, many = (step_bytes(config, wide.replace(num_hidden_layers=n)) for n in (2, 5))
    assert many.peak - few.peak == many.kept - few.kept
    tokens = config.batch.micro * config.data.sequence_length
    assert few.peak - few.kept > 2 * tokens * 2048 * 4  # before and after the activation function


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("settings", [BIGBIRD, PEGASUS], ids=["bigbird", "pegasus"])
def test_deep_models_are_extrapolated_from_shallow_ones(
    settings: dict[str, Any], checkpoints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = check_run_config(
        changed(settings, **{"train.activation_checkpointing": checkpoints}), "test"
    )
    depths = (
        {"num_hidden_layers": 5}
        if settings is BIGBIRD
        else {"encoder_layers": 4, "decoder_layers": 3}
    )
    deep = model_config_of(settings).replace(**depths)
    extrapolated = step_bytes(config, deep)
    monkeypatch.setattr(activations, "_COUNTED_LAYERS", 5)
    assert step_bytes(config, deep) == extrapolated


def test_a_model_runs_after_it_was_counted() -> None:
    config, model_config = sharing(BIGBIRD, 1), model_config_of(BIGBIRD)
    step_bytes(config, model_config)
    model = config.objective.kind.model_class(model_config)
    assert float(model.loss_sums(**example_batch(config))["mlm_loss"].detach()) > 0


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("settings", [BIGBIRD, PEGASUS], ids=["bigbird", "pegasus"])
def test_three_chunks_of_attention_and_loss_count_as_all_do(
    settings: dict[str, Any], checkpoints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"data.sequence_length": 1024, "train.activation_checkpointing": checkpoints}
    config = check_run_config(changed(settings, **changes), "test")
    model_config = model_config_of(settings).replace(max_position_embeddings=1024)
    monkeypatch.setattr(gathered, "_CHUNK_SCORES_CPU", 1 << 13)
    monkeypatch.setattr(cross_entropy, "_CHUNK_CPU", 1 << 10)
    few = step_bytes(config, model_config)
    for module in (gathered, cross_entropy):
        monkeypatch.setattr(module, "chunk_starts", partial(range, 0))
    assert step_bytes(config, model_config) == few
