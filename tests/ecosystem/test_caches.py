"""Caches and encoder outputs of transformers as inputs of our decoders, under old names and new."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from support.every_class import tiny_batch, tiny_model, twin_of

from bigbird_ds.errors import ConfigError
from bigbird_ds.models.cache import KeyValueCache

DECODERS = ("BigBirdForCausalLM", "BigBirdPegasusForCausalLM")
SEQ2SEQ = "BigBirdPegasusForConditionalGeneration"
CACHES = {
    "ours": KeyValueCache,
    "dynamic": transformers.DynamicCache,
    "encoder-decoder": lambda: transformers.EncoderDecoderCache(
        transformers.DynamicCache(), transformers.DynamicCache()
    ),
}


def write(model: Any, ids: torch.Tensor, given: dict[str, Any], steps: int = 4) -> torch.Tensor:
    """Tokens (1, steps), each the likeliest next one, with what the cache holds read once."""
    start = ids.shape[1]
    for _ in range(steps):
        inputs = model.prepare_inputs_for_generation(ids, use_cache=True, **given)
        ids = torch.cat([ids, model(**inputs).logits[:, -1:].argmax(-1)], 1)
    return ids[:, start:]


def generate_without_cache(
    model: Any, ids: torch.Tensor, name: str, given: dict[str, Any]
) -> torch.Tensor:
    start = ids.shape[1]
    for _ in range(4):
        logits = model(**{name: ids}, use_cache=False, **given).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids[:, start:]


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("argument", ["past_key_values", "cache"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_extends_the_cache_it_is_given(name: str, argument: str, kind: str) -> None:
    spread = {"init_std" if "Pegasus" in name else "initializer_range": 0.3}
    model, kept = tiny_model(name, **spread), CACHES[kind]()
    model.eval()
    ids = tiny_batch(name)["input_ids"][:1, :7]
    found = write(model, ids, {argument: kept})
    assert torch.equal(found, generate_without_cache(model, ids, "input_ids", {}))
    assert kept.get_seq_length() == 7 + 3
    output = model(ids[:, :1], **{argument: kept})
    assert output.past_key_values is kept and output.cache is kept


@pytest.mark.parametrize("kind", CACHES)
def test_an_encoder_decoder_writes_from_the_outputs_of_transformers(kind: str) -> None:
    model, batch, kept = (
        tiny_model(SEQ2SEQ, init_std=0.3).eval(),
        tiny_batch(SEQ2SEQ),
        CACHES[kind](),
    )
    inputs = {key: batch[key][:1] for key in ("input_ids", "attention_mask")}
    encoded = twin_of(model).eval().model.encoder(**inputs)
    assert type(encoded).__module__.startswith("transformers")
    mask, start = inputs["attention_mask"], torch.tensor([[2]])
    given = {"encoder_outputs": encoded, "attention_mask": mask}
    wanted = generate_without_cache(model, start, "decoder_input_ids", inputs)
    assert torch.equal(generate_without_cache(model, start, "decoder_input_ids", given), wanted)
    assert torch.equal(write(model, start, {**given, "cache": kept}), wanted)
    assert kept.get_seq_length() == 4


def test_a_cache_that_cannot_grow_or_is_given_twice_is_refused() -> None:
    model = tiny_model("BigBirdPegasusForCausalLM").eval()
    ids = torch.randint(5, 50, (1, 3))
    with pytest.raises(ConfigError, match="two caches given"):
        model(ids, past_key_values=KeyValueCache(), cache=KeyValueCache())
    with pytest.raises(ConfigError, match="cannot use this cache"):
        model(ids, past_key_values=((torch.zeros(1), torch.zeros(1)),))
