"""An accelerated model of transformers gives the results of the original, and supports more."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.transformers_twin import (
    TINY,
    assert_same_gradients,
    load_twin,
    random_batch,
    save_twin,
)
from torch import nn

from bigbird_ds import BigBirdForSequenceClassification
from bigbird_ds.errors import ConfigError

transformers = pytest.importorskip("transformers", reason="it is transformers' model")

from bigbird_ds.integrations.activations import FusedGELU  # noqa: E402
from bigbird_ds.integrations.transformers import accelerate, restore, use_block_sparse_attention  # noqa: E402

BLOCKS = {"block_size": 4, "num_random_blocks": 2, "max_position_embeddings": 128}
# Up to (5 + 2 * 2) * 4 = 36 tokens attention is full.
SHORT, LONG, RAGGED = 36, 64, 50

PEGASUS = {
    "vocab_size": 120,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "init_std": 0.15,
    **BLOCKS,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("twin")
    return save_twin(target, "BigBirdForSequenceClassification", **BLOCKS)


def fresh(folder: Path, training: bool) -> Any:
    return load_twin(folder, "BigBirdForSequenceClassification").train(training)


def pegasus(training: bool) -> Any:
    torch.manual_seed(5)
    config = transformers.BigBirdPegasusConfig(**PEGASUS)
    return transformers.BigBirdPegasusForConditionalGeneration(config).train(training)


def pegasus_batch(length: int) -> dict[str, Any]:
    batch = random_batch(2, length, padding=5, seed=length)
    del batch["token_type_ids"]
    generator = torch.Generator().manual_seed(length)
    return batch | {"labels": torch.randint(3, 120, (2, 7), generator=generator)}


def gradients_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters that the loss depends on: all except the pooler's."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(list(model.parameters())) - 2
    return found


@pytest.mark.parametrize("training", [False, True])
def test_any_sequence_of_lengths_gives_what_a_fresh_model_gives(
    folder: Path, training: bool
) -> None:
    model = use_block_sparse_attention(fresh(folder, training))
    for length in (LONG, SHORT, RAGGED, 8, LONG):  # transformers would stay in full attention
        batch = random_batch(2, length, padding=5, seed=length)
        labels = torch.tensor([0, 1])
        twin = fresh(folder, training)
        expected, found = twin(**batch, labels=labels), model(**batch, labels=labels)
        torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
        model.zero_grad()
        expected.loss.backward()
        found.loss.backward()
        assert_same_gradients(model, twin)


@pytest.mark.parametrize("training", [False, True])
def test_a_bigbird_pegasus_gives_what_a_fresh_one_gives(training: bool) -> None:
    model = use_block_sparse_attention(pegasus(training))
    for length in (LONG, SHORT, RAGGED, LONG):
        batch = pegasus_batch(length)
        twin = pegasus(training)
        expected, found = twin(**batch), model(**batch)
        torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=0)
        model.zero_grad()
        expected.loss.backward()
        found.loss.backward()
        assert_same_gradients(model, twin)
        assert model.model.encoder.layers[0].self_attn.self.query.weight.grad.abs().max() > 0


def test_a_bigbird_pegasus_trains_under_autocast() -> None:
    batch = pegasus_batch(LONG)
    model, exact = use_block_sparse_attention(pegasus(True)), pegasus(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    expected = exact(**batch).loss
    expected.backward()
    torch.testing.assert_close(loss.float(), expected, rtol=0, atol=0.05)
    wanted = dict(exact.named_parameters())
    for name, parameter in model.named_parameters():
        error = (parameter.grad - wanted[name].grad).norm()
        assert error < 0.1 * wanted[name].grad.norm(), name


def test_positional_ids_and_embeddings_choose_by_their_length_too(folder: Path) -> None:
    model = use_block_sparse_attention(fresh(folder, False))
    for length in (SHORT, LONG):
        ids = random_batch(2, length)["input_ids"]
        embeds = model.get_input_embeddings()(ids)
        with torch.no_grad():
            expected = fresh(folder, False)(ids).logits
            torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-5)
            found = model(inputs_embeds=embeds).logits
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_it_trains_under_autocast(folder: Path) -> None:
    batch = random_batch(2, LONG, padding=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model = use_block_sparse_attention(fresh(folder, True))
        loss = model(**batch, labels=torch.tensor([0, 1])).loss
    loss.backward()
    expected = fresh(folder, True)(**batch, labels=torch.tensor([0, 1])).loss
    torch.testing.assert_close(loss.float(), expected, rtol=0, atol=0.05)
    assert all(torch.isfinite(gradient).all() for gradient in gradients_of(model).values())


def test_masks_of_truth_values_and_no_random_blocks_work(folder: Path) -> None:
    """Unsupported by transformers 5.24."""
    batch = random_batch(2, LONG, padding=5)
    masked = batch | {"attention_mask": batch["attention_mask"].bool()}
    with torch.no_grad():
        expected = fresh(folder, False)(**batch).logits
        found = use_block_sparse_attention(fresh(folder, False))(**masked).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    without = load_twin(folder, "BigBirdForSequenceClassification", num_random_blocks=0)
    from bigbird_ds import BigBirdForSequenceClassification

    ours = BigBirdForSequenceClassification.from_pretrained(folder, num_random_blocks=0)
    with torch.no_grad():
        found = use_block_sparse_attention(without)(**batch).logits
        torch.testing.assert_close(found, ours(**batch).logits, rtol=0, atol=1e-5)


def test_checkpointed_layers_repeat_themselves_even_after_an_input_of_another_length(
    folder: Path,
) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = use_block_sparse_attention(fresh(folder, True))
        if checkpointing:
            # renamed in transformers 5.24
            if hasattr(model, "activation_checkpointing_enable"):
                model.activation_checkpointing_enable()
            else:
                model.gradient_checkpointing_enable()
        losses = [
            model(**random_batch(2, length), labels=torch.tensor([0, 1])).loss
            for length in (LONG, SHORT)
        ]
        sum(losses).backward()
        gradients.append(gradients_of(model))
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("asked_before", [False, True])
def test_attention_weights_come_on_request_and_sum_to_one(folder: Path, asked_before: bool) -> None:
    batch = random_batch(1, LONG)
    model = fresh(folder, False)
    if asked_before:
        model(**batch, output_attentions=True)
    use_block_sparse_attention(model)
    with torch.no_grad():
        weights = model(**batch, output_attentions=True).attentions
        assert model(**batch).attentions is None
    assert len(weights) == 2
    for layer in weights:
        assert layer.shape == (1, 2, LONG, LONG)
        torch.testing.assert_close(layer.sum(-1), torch.ones(1, 2, LONG))
    restore(model)
    assert len(model(**batch, output_attentions=True).attentions) == 2


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_fast", "gelu", "relu"])
def test_activations_compute_the_same_in_one_operation(activation: str) -> None:
    torch.manual_seed(5)
    config = transformers.BigBirdConfig(**TINY, **BLOCKS, hidden_act=activation)
    model = transformers.BigBirdForMaskedLM(config)
    before = model.bert.encoder.layer[0].intermediate.intermediate_act_fn
    heads = model.cls.predictions.transform
    twin, batch = copy.deepcopy(model), random_batch(2, LONG, padding=5)
    use_block_sparse_attention(model)
    is_tanh_form = activation in ("gelu_new", "gelu_fast")
    found = model.bert.encoder.layer[0].intermediate.intermediate_act_fn
    for module in (found, heads.transform_act_fn):
        assert isinstance(module, FusedGELU) == is_tanh_form
    labels = batch["input_ids"]
    expected, output = twin(**batch, labels=labels), model(**batch, labels=labels)
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=1e-5)
    expected.loss.backward()
    output.loss.backward()
    assert_same_gradients(model, twin)
    restore(model)
    assert model.bert.encoder.layer[0].intermediate.intermediate_act_fn is before


def test_parameters_and_saved_files_are_the_same(folder: Path, tmp_path: Path) -> None:
    model = fresh(folder, False)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    generator_state = torch.get_rng_state()
    use_block_sparse_attention(model)
    assert torch.equal(torch.get_rng_state(), generator_state)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    model.save_pretrained(tmp_path)
    saved = (tmp_path / "model.safetensors").read_bytes()
    assert saved == (folder / "model.safetensors").read_bytes()


def test_restore_undoes_it_and_keeps_the_new_weights(folder: Path) -> None:
    model = fresh(folder, False)
    names = [type(module).__name__ for module in model.modules()]
    use_block_sparse_attention(model)
    model(**random_batch(1, SHORT))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    twin = fresh(folder, False)
    twin.load_state_dict(model.state_dict())
    other = copy.deepcopy(model)
    for found in (restore(model), restore(other)):
        assert [type(module).__name__ for module in found.modules()] == names
        batch = random_batch(2, LONG)
        with torch.no_grad():
            assert torch.equal(found(**batch).logits, twin(**batch).logits)
    use_block_sparse_attention(model)  # once more
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, twin(**batch).logits, rtol=0, atol=1e-5)


class Adapter(nn.Module):
    """A trainable change of a linear layer, inserted in place of it, as by peft and quantizers."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base
        self.lora = nn.Linear(TINY["hidden_size"], TINY["hidden_size"])

    def forward(self, *inputs: Any, **options: Any) -> Any:
        output = self.base_layer(*inputs, **options)
        if isinstance(output, tuple):
            return output[0] + self.lora(inputs[0]), *output[1:]
        return output + self.lora(inputs[0])


@pytest.mark.parametrize("family", ["BigBird", "BigBirdPegasus"])
@pytest.mark.parametrize("place", ["query", "output.dense", "self", "attention"])
def test_restore_keeps_what_was_put_inside_meanwhile(
    folder: Path, tmp_path: Path, family: str, place: str
) -> None:
    is_pegasus = family == "BigBirdPegasus"
    model = use_block_sparse_attention(pegasus(False) if is_pegasus else fresh(folder, False))
    layers = model.model.encoder.layers if is_pegasus else model.bert.encoder.layer
    attention_name = "self_attn" if is_pegasus else "attention"
    paths = {
        "query": f"{attention_name}.self.query",
        "output.dense": f"{attention_name}.output" + ("" if is_pegasus else ".dense"),
        "self": f"{attention_name}.self",
        "attention": attention_name,
    }
    for layer in layers:
        parent, _, name = paths[place].rpartition(".")
        holder = layer.get_submodule(parent)
        setattr(holder, name, Adapter(getattr(holder, name)).eval())
    # transformers itself switches to full attention through the modules' own attributes
    lengths = (LONG,) if place in ("self", "attention") else (SHORT, LONG)
    batches = [pegasus_batch(n) if is_pegasus else random_batch(2, n, 5) for n in lengths]
    with torch.no_grad():
        wanted = [model(**batch).logits for batch in batches]
        restore(model)
        # the long input first: after a short one transformers stays in full attention
        found = [model(**batch).logits for batch in reversed(batches)]
    for ours, theirs in zip(wanted, reversed(found), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert sum("lora" in name for name in model.state_dict()) == 2 * len(layers)
    assert not any("bigbird_ds" in type(module).__module__ for module in model.modules())


def test_restore_keeps_the_adapters_of_peft(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the adapters are peft's")
    model = use_block_sparse_attention(fresh(folder, True))
    config = peft.LoraConfig(
        r=2, target_modules=["query", "value", "dense"], init_lora_weights=False
    )
    tuned = peft.get_peft_model(model, config)
    tuned(**random_batch(2, LONG), labels=torch.tensor([0, 1])).loss.backward()
    with torch.no_grad():
        wanted = tuned.eval()(**random_batch(2, LONG)).logits
    restore(tuned)
    assert not any("bigbird_ds" in type(module).__module__ for module in tuned.modules())
    with torch.no_grad():
        found = tuned(**random_batch(2, LONG)).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    tuned.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(fresh(folder, False), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            again(**random_batch(2, LONG)).logits, wanted, rtol=1e-5, atol=1e-5
        )
    assert any(name.endswith("self.query.lora_A.default.weight") for name in again.state_dict())


def test_a_model_that_fell_back_before_is_block_sparse_again(folder: Path) -> None:
    model = fresh(folder, False)
    batch = random_batch(2, LONG)
    with torch.no_grad():
        model(**random_batch(2, SHORT))
        expected = fresh(folder, False)(**batch).logits
        assert not torch.allclose(model(**batch).logits, expected, atol=1e-5)
        use_block_sparse_attention(model)
        torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)


def test_the_style_of_pretraining_can_be_asked_for(folder: Path) -> None:
    from bigbird_ds import BigBirdForSequenceClassification

    batch = random_batch(2, LONG)
    ours = BigBirdForSequenceClassification.from_pretrained(folder, random_style="uniform")
    model = use_block_sparse_attention(fresh(folder, False), style="uniform")
    with torch.no_grad():
        found, expected = model(**batch).logits, ours(**batch).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert not torch.allclose(found, fresh(folder, False)(**batch).logits, atol=1e-5)
    with pytest.raises(ConfigError, match="unknown style"):
        use_block_sparse_attention(fresh(folder, False), style="unifrom")


@pytest.mark.parametrize("style", ["uniform", "relay"])
def test_the_style_is_that_of_config_json(folder: Path, tmp_path: Path, style: str) -> None:
    from bigbird_ds import BigBirdForSequenceClassification

    ours = BigBirdForSequenceClassification.from_pretrained(folder, random_style=style)
    ours.save_pretrained(tmp_path)
    again = BigBirdForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.random_style == style
    model = use_block_sparse_attention(fresh(tmp_path, False))
    batch = random_batch(2, LONG)
    with torch.no_grad():
        expected = ours(**batch).logits
        torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(again(**batch).logits, expected, rtol=0, atol=1e-5)
        plain = fresh(tmp_path, False)(**batch).logits
        assert not torch.allclose(plain, expected, atol=1e-5)


def test_a_model_without_random_blocks_computes_long_inputs(tmp_path: Path) -> None:
    changes = {**BLOCKS, "num_random_blocks": 0}
    folder = save_twin(tmp_path, "BigBirdForSequenceClassification", **changes)
    batch = random_batch(2, LONG, padding=5)
    with pytest.raises(RuntimeError, match="0 elements"):
        fresh(folder, False)(**batch)
    ours = BigBirdForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        torch.testing.assert_close(
            use_block_sparse_attention(fresh(folder, False))(**batch).logits,
            ours(**batch).logits,
            rtol=1e-5,
            atol=1e-5,
        )


def test_no_short_input_is_warned_about(
    folder: Path, transformers_log: pytest.LogCaptureFixture
) -> None:
    fresh(folder, False)(**random_batch(1, SHORT))
    assert "original_full" in transformers_log.text
    transformers_log.clear()
    model = use_block_sparse_attention(fresh(folder, False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(**random_batch(1, SHORT))
    assert "original_full" not in transformers_log.text


def test_what_cannot_be_replaced_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no block-sparse attention"):
        use_block_sparse_attention(torch.nn.Linear(2, 2))
    full = load_twin(folder, "BigBirdModel", attention_type="original_full")
    with pytest.raises(ConfigError, match="no block-sparse attention"):
        use_block_sparse_attention(full)
    model = fresh(folder, False)
    with pytest.raises(ConfigError, match="nothing to undo"):
        restore(model)
    use_block_sparse_attention(model)
    with pytest.raises(ConfigError, match="already replaced"):
        use_block_sparse_attention(model)
    with pytest.raises(ConfigError, match="input length selects the attention"):
        model.bert.set_attention_type("original_full")

    other = fresh(folder, False)
    other.bert.encoder.layer[1].attention = torch.nn.Identity()
    with pytest.raises(ConfigError, match="unknown structure"):
        use_block_sparse_attention(other)
    assert type(other.bert.encoder.layer[0].attention).__name__ == "BigBirdAttention"

    attention = type(fresh(folder, False).bert.encoder.layer[0].attention)
    monkeypatch.setattr(attention, "forward", lambda self, hidden_states, head_mask=None: None)
    with pytest.raises(ConfigError, match="unknown structure"):
        use_block_sparse_attention(fresh(folder, False))


def test_the_former_name_warns_and_does_the_same(folder: Path) -> None:
    with pytest.warns(FutureWarning, match="is now use_block_sparse_attention"):
        model = accelerate(fresh(folder, False))
    with pytest.raises(ConfigError, match="again"):
        use_block_sparse_attention(model)
