"""peft on our classes: the same adapters as on transformers' classes, saved and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.every_class import CLASSES, HEADS, tiny_batch, tiny_model, twin_of
from support.trainers import losses, make_trainer, samples

peft = pytest.importorskip("peft", reason="peft is not installed")

TASKS = {
    "BigBirdModel": "FEATURE_EXTRACTION",
    "BigBirdForCausalLM": "CAUSAL_LM",
    "BigBirdForSequenceClassification": "SEQ_CLS",
    "BigBirdForTokenClassification": "TOKEN_CLS",
    "BigBirdForQuestionAnswering": "QUESTION_ANS",
    "BigBirdPegasusModel": "FEATURE_EXTRACTION",
    "BigBirdPegasusForConditionalGeneration": "SEQ_2_SEQ_LM",
    "BigBirdPegasusForSequenceClassification": "SEQ_CLS",
    "BigBirdPegasusForQuestionAnswering": "QUESTION_ANS",
    "BigBirdPegasusForCausalLM": "CAUSAL_LM",
}
# peft cannot train a head as a whole and adapt it; neither with transformers.
HEAD_IS_ONE_LAYER = ("TokenClassification", "QuestionAnswering")


def adapted(model: Any, **settings: Any) -> Any:
    name = type(model).__name__
    everything = "all-linear" if not name.endswith(HEAD_IS_ONE_LAYER) else ["query", "fc1"]
    arguments = {"task_type": TASKS.get(name), "r": 2, "target_modules": everything, **settings}
    torch.manual_seed(1)
    return peft.get_peft_model(model, peft.LoraConfig(**arguments))


def trained(model: Any) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("name", CLASSES)
def test_the_same_is_adapted_as_in_transformers_and_not_the_tied_projection(name: str) -> None:
    found = trained(adapted(tiny_model(name)))
    assert sorted(found) == sorted(trained(adapted(twin_of(tiny_model(name)))))
    assert found and not any("predictions.decoder" in n or "lm_head" in n for n in found)


@pytest.mark.parametrize("name", HEADS)
def test_an_adapter_learns_as_in_transformers(name: str, tmp_path: Path) -> None:
    length = {"seq_len": 60} if name == "BigBirdForCausalLM" else {}
    model, data = tiny_model(name), samples(name, **length)
    twin = twin_of(model)
    runs = [make_trainer(adapted(m, lora_dropout=0.0), data, tmp_path) for m in (model, twin)]
    for trainer in runs:
        trainer.train()
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_a_saved_adapter_computes_the_same_loaded_and_merged(name: str, tmp_path: Path) -> None:
    model, batch = adapted(tiny_model(name)), tiny_batch(name)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.1)
    model.eval().save_pretrained(tmp_path)
    wanted = model(**batch).to_tuple()
    again = peft.PeftModel.from_pretrained(tiny_model(name), tmp_path).eval()
    assert torch.equal(again(**batch).to_tuple()[0], wanted[0])
    merged = model.merge_and_unload().eval()
    assert type(merged).__name__ == name
    torch.testing.assert_close(merged(**batch).to_tuple()[0], wanted[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["BigBirdForMaskedLM", "BigBirdPegasusForConditionalGeneration"])
def test_checkpointed_layers_pass_gradients_to_adapters(name: str) -> None:
    def gradients(checkpoints: bool) -> list[torch.Tensor]:
        model = adapted(tiny_model(name))
        if checkpoints:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={})
            model.enable_input_require_grads()
        model(**tiny_batch(name)).loss.backward()
        named = model.named_parameters()
        return [p.grad for key, p in named if "lora_B" in key and "pooler" not in key]

    for kept, computed_again in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(computed_again, kept)
        assert kept.abs().sum() > 0
