"""transformers' Trainer on our classes gives the losses of transformers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.every_class import HEADS, tiny_model, twin_of
from support.trainers import losses, make_trainer, samples, train

import bigbird_ds
from bigbird_ds.errors import ConfigError
from bigbird_ds.integrations.transformers import use_block_sparse_attention

pytest.importorskip("accelerate", reason="Trainer needs it")

TIED = ("BigBirdForMaskedLM", "BigBirdPegasusForConditionalGeneration")


def length_of(name: str) -> dict[str, Any]:
    # A decoder of transformers that is long enough for block-sparse attention sees later tokens.
    return {"seq_len": 60} if name == "BigBirdForCausalLM" else {}


@pytest.mark.parametrize("name", HEADS)
def test_losses_and_predictions_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    model, data = tiny_model(name), samples(name, **length_of(name))
    twin = twin_of(model)
    ours, theirs = (make_trainer(m, data, tmp_path) for m in (model, twin))
    for trainer in (ours, theirs):
        trainer.train()
    assert len(losses(ours)) == 3
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-4)
    assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], rel=1e-4)
    found, expected = (trainer.predict(data[:2]).predictions for trainer in (ours, theirs))
    assert shapes(found) == shapes(expected)


def shapes(predictions: Any) -> list[tuple[int, ...]]:
    parts = predictions if isinstance(predictions, tuple) else (predictions,)
    return [part.shape for part in parts]


@pytest.mark.parametrize("name", [name for name in HEADS if name != "BigBirdForPreTraining"])
def test_micro_batches_weigh_as_the_whole_batch(name: str, tmp_path: Path) -> None:
    """Two micro-batches of one sample with different numbers of labels, or one of two."""
    data = samples(name, **length_of(name))
    whole = train(tiny_model(name), data, tmp_path)
    halves = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    assert train(tiny_model(name), data, tmp_path, **halves) == pytest.approx(whole, rel=1e-4)


# Its two losses have different counts, so there is no single number to divide by.
def test_the_losses_of_pretraining_are_averaged_over_micro_batches(tmp_path: Path) -> None:
    data = samples("BigBirdForPreTraining")[:2]
    model = tiny_model("BigBirdForPreTraining").eval()
    wanted = [model(**{key: value[None] for key, value in one.items()}).loss for one in data]
    halves = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    model.config.random_style = "hf_eval"
    found = train(model, data, tmp_path, max_steps=1, **halves)
    assert found[0] == pytest.approx(sum(loss.item() for loss in wanted) / 2, rel=1e-4)


@pytest.mark.parametrize("name", TIED)
def test_a_run_resumes_from_the_checkpoint_of_a_tied_model(name: str, tmp_path: Path) -> None:
    data = samples(name)
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = train(tiny_model(name), data, tmp_path, **settings)
    trainer = make_trainer(tiny_model(name), data, tmp_path, **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses(trainer) == pytest.approx(whole, rel=1e-5)
    trainer.save_model(str(tmp_path / "last"))
    model_class = getattr(bigbird_ds, name)
    again = model_class.from_pretrained(tmp_path / "last", config=trainer.model.config)
    for key, value in trainer.model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("name", TIED)
def test_a_state_of_tensors_shares_no_memory_and_parameters_stay_tied(name: str) -> None:
    model = tiny_model(name)
    state = model.state_dict()
    places = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(places)) == len(places)
    kept = model.state_dict(keep_vars=True)
    for twin, source in type(model).tied_names.items():
        assert kept[twin] is kept[source] is model.get_parameter(source)
        assert torch.equal(state[twin], state[source])


@pytest.mark.parametrize("name", TIED)
def test_layers_are_checkpointed_as_trainer_asks(name: str, tmp_path: Path) -> None:
    data = samples(name)
    kept = train(tiny_model(name), data, tmp_path)
    model = tiny_model(name)
    asked = {"gradient_checkpointing": True}
    asked["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    assert train(model, data, tmp_path, **asked) == pytest.approx(kept, rel=1e-5)
    assert model.is_gradient_checkpointing and model.is_activation_checkpointing
    model.activation_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@pytest.mark.parametrize(
    "asked",
    [
        {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"gradient_checkpointing_kwargs": {"of_another": 1}},
        {"every_n_layers": 2},
        {"offload": True},
    ],
)
def test_another_way_of_checkpointing_is_refused(asked: dict[str, Any]) -> None:
    model = tiny_model("BigBirdModel")
    with pytest.raises(ConfigError, match="unsupported gradient checkpointing arguments"):
        model.gradient_checkpointing_enable(**asked)
    assert not model.is_gradient_checkpointing


@pytest.mark.parametrize("accelerated", [False, True])
def test_a_compiled_model_trains_at_new_lengths(accelerated: bool, tmp_path: Path) -> None:
    model = tiny_model("BigBirdForMaskedLM")
    if accelerated:
        model = use_block_sparse_attention(twin_of(model))
    data = samples("BigBirdForMaskedLM")
    plain = train(tiny_model("BigBirdForMaskedLM"), data, tmp_path, max_steps=2)
    compiled = {"torch_compile": True, "torch_compile_backend": "aot_eager", "max_steps": 2}
    trainer = make_trainer(model, data, tmp_path, **compiled)
    trainer.train()
    assert losses(trainer) == pytest.approx(plain, rel=1e-4)
    other = samples("BigBirdForMaskedLM", 2, seq_len=116)
    assert trainer.evaluate(other)["eval_loss"] > 0


def test_autocast_trains(tmp_path: Path) -> None:
    data = samples("BigBirdForMaskedLM")
    plain = train(tiny_model("BigBirdForMaskedLM"), data, tmp_path)
    mixed = train(tiny_model("BigBirdForMaskedLM"), data, tmp_path, bf16=True)
    assert mixed == pytest.approx(plain, rel=1e-2)


def test_trainer_sets_fields_of_the_config_and_counts_parameters(tmp_path: Path) -> None:
    model = tiny_model("BigBirdForCausalLM")
    make_trainer(model, samples("BigBirdForCausalLM", 2), tmp_path, use_cache=False)
    assert model.config.use_cache is False and model.bert.config.use_cache is False
    twin = twin_of(model)
    for left_out in (False, True):
        counted = model.num_parameters(exclude_embeddings=left_out)
        assert counted == twin.num_parameters(exclude_embeddings=left_out)
    model.cls.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) < model.num_parameters()


def test_labels_are_smoothed(tmp_path: Path) -> None:
    name = "BigBirdPegasusForConditionalGeneration"
    model, data = tiny_model(name), samples(name)
    for sample in data:  # as from a data collator, because Trainer removes the labels
        labels = sample["labels"][None]
        sample["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)[0]
    twin = twin_of(model)
    found, expected = (train(m, data, tmp_path, label_smoothing_factor=0.1) for m in (model, twin))
    assert found == pytest.approx(expected, rel=1e-4)
    assert isinstance(twin, transformers.PreTrainedModel)
