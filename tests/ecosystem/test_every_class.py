"""What users of transformers expect of a model class, for each of our classes."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.every_class import CLASSES, HEADS, LONG, tiny_batch, tiny_model

import bigbird_ds

every_class = pytest.mark.parametrize("name", CLASSES)
# The others take only ids (they find the end of a text in them), or have one more dimension.
ONE_TEXT = [
    name
    for name in CLASSES
    if name not in ("BigBirdForMultipleChoice", "BigBirdPegasusForSequenceClassification")
]
UNUSED = ("pooler", "seq_relationship")  # without a loss here
CROSS_ATTENTION = "encoder_attn"


def first(output: Any) -> torch.Tensor:
    """The loss if there is one, otherwise the hidden states."""
    return output.to_tuple()[0]


def scores(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """The first output of a call without labels."""
    given = {key: batch[key] for key in ("input_ids", "attention_mask")}
    return first(model(**given))


@every_class
def test_what_is_saved_is_loaded_by_both(name: str, tmp_path: Path) -> None:
    model, batch = tiny_model(name).eval(), tiny_batch(name)
    model.save_pretrained(tmp_path)
    again = getattr(bigbird_ds, name).from_pretrained(tmp_path)
    assert torch.equal(first(again(**batch)), first(model(**batch)))
    theirs, report = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    short = {k: value[..., :60].contiguous() for k, value in batch.items() if value.dim() > 1}
    if name == "BigBirdPegasusForSequenceClassification":
        short["input_ids"][:, -1] = 1
    torch.testing.assert_close(first(theirs(**short)), first(model(**short)))


@every_class
def test_a_model_in_16_bit_is_saved_so(name: str, tmp_path: Path) -> None:
    tiny_model(name).to(torch.bfloat16).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    tensors = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert getattr(bigbird_ds, name).from_pretrained(tmp_path).dtype == torch.bfloat16


@every_class
def test_a_state_dict_moves_weights_into_another_model(name: str) -> None:
    model, other = tiny_model(name).eval(), tiny_model(name).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(model.state_dict())
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@every_class
def test_ties_hold_after_loading_moving_and_copying(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    model.save_pretrained(tmp_path)
    loaded = getattr(bigbird_ds, name).from_pretrained(tmp_path)
    number = model.num_parameters()
    for same in (model, loaded, copy.deepcopy(model), tiny_model(name).double()):
        assert same.num_parameters() == number
        for twin, source in type(model).tied_names.items():
            assert same.get_parameter(twin) is same.get_parameter(source)
    untied = tiny_model(name, tie_word_embeddings=False)
    for twin, source in type(model).tied_names.items():
        assert untied.get_parameter(twin) is not untied.get_parameter(source)


@every_class
def test_an_evaluation_repeats_and_a_tuple_holds_the_same(name: str) -> None:
    model, batch = tiny_model(name).eval(), tiny_batch(name)
    wants = {"output_hidden_states": True, "output_attentions": True}
    by_name = model(**batch, **wants)
    by_place = model(**batch, **wants, return_dict=False)
    assert isinstance(by_place, tuple) and len(by_place) == len(by_name)
    assert torch.equal(by_place[0], first(by_name))
    for key, states in by_name.items():
        if key.endswith("hidden_states"):
            assert len(states) == 2 and all(state.shape[-1] == 16 for state in states)
        if key.endswith("attentions"):
            rows = states[0].sum(-1)
            torch.testing.assert_close(rows, torch.ones_like(rows))


@every_class
def test_a_sample_gives_the_same_result_in_a_batch(name: str) -> None:
    model, batch = tiny_model(name).eval(), tiny_batch(name, batch=3)
    batched = scores(model, batch)
    for row in range(3):
        single = scores(model, {key: value[row : row + 1] for key, value in batch.items()})
        torch.testing.assert_close(batched[row : row + 1], single)


@pytest.mark.parametrize("name", ONE_TEXT)
@pytest.mark.parametrize("seq_len", [40, LONG])
def test_word_vectors_work_as_ids(name: str, seq_len: int) -> None:
    model = tiny_model(name).eval()
    ids = tiny_batch(name, seq_len=seq_len)["input_ids"]
    table = next(module for module in model.modules() if isinstance(module, torch.nn.Embedding))
    options: dict[str, Any] = {}
    if "Pegasus" in name and not name.endswith("CausalLM"):
        options["decoder_input_ids"] = ids[:, :9]
    if name == "BigBirdForQuestionAnswering":
        options["question_lengths"] = torch.full((2, 1), 7)
    found = model(inputs_embeds=table(ids), **options)
    torch.testing.assert_close(first(found), first(model(ids, **options)))


@pytest.mark.parametrize("name", HEADS)
def test_a_loss_reaches_every_parameter_and_checkpointed_layers_the_same(name: str) -> None:
    def gradients(checkpoints: bool) -> dict[str, torch.Tensor | None]:
        model = tiny_model(name).train()
        if checkpoints:
            model.gradient_checkpointing_enable()
        model(**tiny_batch(name)).loss.backward()
        return {key: parameter.grad for key, parameter in model.named_parameters()}

    kept, computed_again = gradients(False), gradients(True)
    for key, gradient in kept.items():
        if gradient is None:  # without cross-attention a decoder reads no other sequence
            assert any(part in key for part in (*UNUSED, CROSS_ATTENTION)), key
        else:
            torch.testing.assert_close(computed_again[key], gradient)


@every_class
def test_arguments_are_those_of_transformers(name: str) -> None:
    def arguments(model_class: Any) -> set[str]:
        parameters = inspect.signature(model_class.forward).parameters.values()
        return {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}

    ours = arguments(getattr(bigbird_ds, name))
    base = "BigBirdPegasusModel" if "Pegasus" in name else "BigBirdModel"
    passed_on = arguments(getattr(bigbird_ds, base))  # through **options
    assert arguments(getattr(transformers, name)) <= ours | passed_on
