"""Every model class with a tiny config, a batch and labels, and its twin in transformers."""

from __future__ import annotations

from typing import Any

import torch
import transformers

import bigbird_ds
from bigbird_ds.hub.auto import MODEL_CLASSES
from support.tiny_models import tiny_bigbird, tiny_pegasus

CLASSES = tuple(MODEL_CLASSES)
# The classes that compute a loss, and so those that can be fine-tuned.
HEADS = tuple(name for name in CLASSES if name not in ("BigBirdModel", "BigBirdPegasusModel"))
LONG = 120  # tokens: block-sparse above 112, and padded internally to 128
_SIZES = {"max_position_embeddings": 128, "sep_token_id": 4}
_PEGASUS = {"max_position_embeddings": 128}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def tiny_model(name: str, **changes: Any) -> Any:
    """A model of the class, without dropout, of one layer (per stack); identical at every call."""
    torch.manual_seed(0)
    model_class = getattr(bigbird_ds, name)
    if "Pegasus" in name:
        layers = {"encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
        return model_class(tiny_pegasus(**{**_PEGASUS, **layers, **changes}))
    decoder = {"is_decoder": True} if name == "BigBirdForCausalLM" else {}
    layers = {"num_hidden_layers": 1, **_NO_DROPOUT, **decoder}
    return model_class(tiny_bigbird(**{**_SIZES, **layers, **changes}))


def twin_of(model: Any) -> Any:
    """The class of transformers of the same name, with the same weights."""
    name = type(model).__name__
    family = "BigBirdPegasusConfig" if "Pegasus" in name else "BigBirdConfig"
    values = model.config.to_dict()
    del values["architectures"], values["random_style"]
    twin = getattr(transformers, name)(getattr(transformers, family)(**values))
    twin.load_state_dict(model.state_dict())
    return twin


def tiny_batch(name: str, seq_len: int = LONG, batch: int = 2, seed: int = 0) -> dict[str, Any]:
    """Inputs of the class with labels; the last sample ends in padding."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 2, seq_len) if name == "BigBirdForMultipleChoice" else (batch, seq_len)
    ids = torch.randint(5, 50, shape, generator=generator)
    ids[..., -9] = 1  # the final </s> of a Pegasus text
    mask = torch.ones_like(ids)
    ids[-1, ..., -8:], mask[-1, ..., -8:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask, **_labels(name, ids, generator)}


def _labels(name: str, ids: torch.Tensor, generator: torch.Generator) -> dict[str, Any]:
    def classes(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randint(0, 2, shape, generator=generator)

    batch = len(ids)
    if name in ("BigBirdModel", "BigBirdPegasusModel"):
        return {}
    if "QuestionAnswering" in name:
        places = torch.arange(batch)
        return {"start_positions": 20 + places, "end_positions": 25 + places}
    if "SequenceClassification" in name or "MultipleChoice" in name:
        return {"labels": classes((batch,))}
    if "TokenClassification" in name:
        return {"labels": classes(tuple(ids.shape))}
    if name == "BigBirdPegasusForConditionalGeneration":
        return {"labels": ids[:, :12].clone()}
    labels = ids.clone()
    labels[:, ::3] = -100  # a different number in each sample:
    labels[0, :40] = -100
    if name == "BigBirdForPreTraining":
        return {"labels": labels, "next_sentence_label": classes((batch,))}
    return {"labels": labels}
