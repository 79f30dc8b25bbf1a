"""transformers' pipelines give the same results with our models as with transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import tokenizers
import transformers
from support.every_class import tiny_model, twin_of

from bigbird_ds.errors import ConfigError

TEXT = "w7 w8 [MASK] w9 w10 w11"
LONG_TEXT = " ".join(f"w{10 + place % 30}" for place in range(110)) + " [MASK] w7 w8"  # sparse


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Words w5, w6, ... with the ids of their numbers."""
    vocabulary = {"[PAD]": 0, "</s>": 1, "<s>": 2, "[CLS]": 3, "[SEP]": 4}
    vocabulary |= {f"w{number}": number for number in range(5, 48)}
    vocabulary |= {"[MASK]": 48, "[UNK]": 49}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)


@pytest.mark.parametrize(
    "task,name",
    [
        ("fill-mask", "BigBirdForMaskedLM"),
        ("text-classification", "BigBirdForSequenceClassification"),
        ("token-classification", "BigBirdForTokenClassification"),
        ("zero-shot-classification", "BigBirdForSequenceClassification"),
        ("feature-extraction", "BigBirdModel"),  # reads outputs by place: wants tuples of us
    ],
)
def test_a_pipeline_gives_the_results_of_transformers(task: str, name: str, tokenizer: Any) -> None:
    labels = {0: "contradiction", 1: "entailment"}
    model = tiny_model(name, id2label=labels).eval()
    model.config.return_dict = task != "feature-extraction"
    options = {"candidate_labels": ["w12", "w13"]} if task.startswith("zero") else {}
    for text in (TEXT, LONG_TEXT):
        # A new twin for each: after a short text transformers stays in full attention.
        found, expected = (
            transformers.pipeline(task, model=m, tokenizer=tokenizer, device="cpu")(text, **options)
            for m in (model, twin_of(model).eval())
        )
        assert flat(found) == pytest.approx(flat(expected), rel=1e-3, abs=1e-5)


def flat(result: Any) -> list[float]:
    """The numbers in a pipeline's result; of words and labels, those of their characters."""
    if isinstance(result, dict):
        return [number for key in sorted(result) for number in flat(result[key])]
    if isinstance(result, list | tuple):
        return [number for part in result for number in flat(part)]
    if isinstance(result, str):
        return [float(ord(character)) for character in result]
    return [] if result is None else [float(result)]


def test_generating_is_left_to_transformers() -> None:
    model = tiny_model("BigBirdForCausalLM").eval()
    assert not model.can_generate()
    with pytest.raises(ConfigError, match="do not generate text"):
        model.generate()
