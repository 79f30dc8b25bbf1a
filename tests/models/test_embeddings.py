"""Token embeddings: read, replaced and resized in every class, as in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.tiny_models import tiny_bigbird, tiny_pegasus
from torch import nn

from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.auto import MODEL_CLASSES, load_pretrained
from bigbird_ds.models.hub_config import HubConfig

V, GROWN = 50, 61
CLASSES = sorted(MODEL_CLASSES)
HEADS = [name for name in CLASSES if name.endswith(("PreTraining", "LM", "Generation"))]


def build(name: str, **changes: Any) -> Any:
    tiny = tiny_pegasus if "Pegasus" in name else tiny_bigbird
    if name == "BigBirdForCausalLM":
        changes["is_decoder"] = True
    torch.manual_seed(0)
    return MODEL_CLASSES[name](tiny(**changes)).eval()


def first_output(model: Any) -> torch.Tensor:
    """The model's output for two texts, each with one </s> at its end."""
    torch.manual_seed(1)
    ids = torch.randint(5, V, (2, 130))
    ids[:, -1] = model.config.eos_token_id
    if type(model).__name__ == "BigBirdForMultipleChoice":
        ids = ids[:, None]
    with torch.no_grad():
        return model(input_ids=ids, return_dict=False)[0]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", CLASSES)
def test_an_extended_model_gives_the_same_logits_for_its_old_tokens(
    tmp_path: Path, name: str, tied: bool
) -> None:
    model = build(name, tie_word_embeddings=tied)
    before = first_output(model)
    table = model.resize_token_embeddings(GROWN)
    assert table is model.get_input_embeddings() and table.num_embeddings == GROWN
    after = first_output(model)
    assert torch.equal(after[..., :V] if name in HEADS else after, before)
    if name in HEADS:
        assert after.shape[-1] == model.get_output_embeddings().out_features == GROWN
    configs = [m.config for m in model.modules() if isinstance(getattr(m, "config", 0), HubConfig)]
    assert {config.vocab_size for config in configs} == {GROWN}

    model.save_pretrained(tmp_path)
    assert torch.equal(first_output(load_pretrained(tmp_path)), after)
    _, loading = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading


@pytest.mark.parametrize("name", HEADS)
def test_ties_and_frozen_weights_stay_and_other_sizes_follow(name: str) -> None:
    model = build(name)
    table = model.get_input_embeddings().weight.requires_grad_(False)
    model.resize_token_embeddings(GROWN)
    model.resize_token_embeddings(pad_to_multiple_of=32)
    assert model.get_input_embeddings().weight is table and not table.requires_grad
    assert len(table) == model.config.vocab_size == 64
    is_tied = name != "BigBirdPegasusForCausalLM"
    assert (model.get_output_embeddings().weight is table) == is_tied
    model.resize_token_embeddings(V)
    assert len(table) == V and first_output(model).shape[-1] == V


def test_new_rows_are_the_mean_of_the_old_ones_or_fresh() -> None:
    model = build("BigBirdForMaskedLM", initializer_range=0.5)
    old = model.get_input_embeddings().weight.detach().clone()
    with torch.no_grad():
        model.cls.predictions.bias.copy_(torch.linspace(0, 1, V))
    model.resize_token_embeddings(V + 400)
    new = model.get_input_embeddings().weight[V:]
    assert torch.allclose(new, old.mean(0).expand_as(new), atol=1e-3)
    noise = (new - old.mean(0)).square().mean(0)
    expected = 1e-9 * old.var(0, unbiased=False)
    assert torch.allclose(noise.sqrt(), expected.sqrt(), rtol=0.2)
    assert torch.allclose(model.cls.predictions.bias[V:], torch.tensor(0.5))

    model = build("BigBirdForMaskedLM", initializer_range=0.5)
    model.resize_token_embeddings(V + 400, mean_resizing=False)
    new = model.get_input_embeddings().weight[V:]
    assert 0.48 < new.std() < 0.52 and not model.cls.predictions.bias[V:].any()


def test_the_added_bias_of_the_logits_is_zero_for_new_tokens() -> None:
    model = build("BigBirdPegasusForConditionalGeneration")
    model.final_logits_bias.fill_(2.0)
    model.resize_token_embeddings(GROWN)
    assert model.final_logits_bias.tolist() == [[2.0] * V + [0.0] * (GROWN - V)]


@pytest.mark.parametrize("name", CLASSES)
def test_the_accessors_mean_the_modules_that_transformers_means(name: str) -> None:
    model = build(name)
    theirs = getattr(transformers, name)(
        getattr(transformers, type(model.config).__name__)(**model.config.to_dict())
    )

    def path(of: nn.Module, module: nn.Module | None) -> list[str]:
        return [name for name, found in of.named_modules() if found is module]

    for accessor in ("get_input_embeddings", "get_output_embeddings"):
        ours, wanted = getattr(model, accessor)(), getattr(theirs, accessor)()
        assert path(model, ours) == path(theirs, wanted), accessor


@pytest.mark.parametrize("name", HEADS)
def test_replaced_embeddings_are_used_and_tied(name: str) -> None:
    model = build(name)
    other = nn.Embedding(V, 16)
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is other
    is_tied = name != "BigBirdPegasusForCausalLM"
    assert (model.get_output_embeddings().weight is other.weight) == is_tied
    head = nn.Linear(16, V)
    model.set_output_embeddings(head)
    assert model.get_output_embeddings() is head
    nn.init.zeros_(head.weight)
    nn.init.ones_(head.bias)
    assert (first_output(model) == 1).all()


def test_what_cannot_be_resized_or_replaced_is_refused() -> None:
    model = build("BigBirdForMaskedLM")
    with pytest.raises(ConfigError, match="does not match the model"):
        model.set_input_embeddings(nn.Embedding(V + 1, 16))
    with pytest.raises(ConfigError, match="no output embeddings"):
        build("BigBirdModel").set_output_embeddings(nn.Linear(16, V))
    for wrong in (0, -3, 2.5):
        with pytest.raises(ConfigError, match="not a number of tokens"):
            model.resize_token_embeddings(wrong)
    with pytest.raises(ConfigError, match="pad_token_id"):
        build("BigBirdModel", pad_token_id=20).resize_token_embeddings(20)
    model.bert.embeddings.word_embeddings = nn.Sequential(model.bert.embeddings.word_embeddings)
    with pytest.raises(ConfigError, match="cannot be resized"):
        model.resize_token_embeddings(GROWN)
    assert model.config.vocab_size == V
