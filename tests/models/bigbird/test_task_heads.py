"""Every task class equals transformers': logits, loss and gradients, in eval and in training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.transformers_twin import (
    TINY,
    assert_close,
    assert_same_loss_and_gradients,
    load_twin,
    random_batch,
    save_twin,
)

import bigbird_ds
from bigbird_ds import (
    BigBirdForPreTraining,
    BigBirdForQuestionAnswering,
    BigBirdForSequenceClassification,
)
from bigbird_ds.errors import ConfigError

SEPARATOR = 4
# full attention up to 72 tokens
SMALL = {"block_size": 8, "num_random_blocks": 2, "max_position_embeddings": 256}
SMALL |= {"sep_token_id": SEPARATOR, "classifier_dropout": 0.0}


def assert_equals_transformers(
    folder: Path,
    class_name: str,
    batch: dict,
    training: bool,
    fields: tuple[str, ...] = ("logits",),
    unseen: tuple[str, ...] = (),
) -> None:
    theirs = load_twin(folder, class_name).train(training)
    ours = getattr(bigbird_ds, class_name).from_pretrained(folder).train(training)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    expected, found = theirs(**batch), ours(**batch)
    for field in fields:
        assert_close(found[field], expected[field])
    assert_same_loss_and_gradients(ours, theirs, found, expected, unseen)


both_modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
lengths = pytest.mark.parametrize("seq_len", [60, 197])


@both_modes
@lengths
@pytest.mark.parametrize(
    "labels,problem",
    [
        (torch.tensor([2, 0]), None),
        (torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]), None),
        (torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.0, 0.25]]), "regression"),
        (torch.tensor([0.7, -1.2]), None),
    ],
    ids=["one label", "several labels", "several numbers", "one number"],
)
def test_sequence_classification(
    tmp_path: Path, seq_len: int, training: bool, labels: torch.Tensor, problem: str | None
) -> None:
    count = 1 if labels.dim() == 1 and labels.is_floating_point() else 3
    settings = {"num_labels": count, "problem_type": problem}
    folder = save_twin(tmp_path, "BigBirdForSequenceClassification", **SMALL, **settings)
    batch = {**random_batch(2, seq_len, padding=9), "labels": labels}
    name = "BigBirdForSequenceClassification"
    assert_equals_transformers(folder, name, batch, training)


def test_an_unknown_problem_type_is_refused() -> None:
    config = bigbird_ds.BigBirdConfig(**TINY, **SMALL, problem_type="regresion")
    model = BigBirdForSequenceClassification(config)
    with pytest.raises(ConfigError, match="unknown problem_type") as caught:
        model(**random_batch(2, 20), labels=torch.tensor([0, 1]))
    assert "'regression'" in str(caught.value.seen)


@both_modes
@lengths
def test_multiple_choice(tmp_path: Path, seq_len: int, training: bool) -> None:
    folder = save_twin(tmp_path, "BigBirdForMultipleChoice", **SMALL)
    flat = random_batch(6, seq_len, padding=9)
    batch = {name: value.view(2, 3, seq_len) for name, value in flat.items()}
    batch["labels"] = torch.tensor([2, 0])
    assert_equals_transformers(
        folder, "BigBirdForMultipleChoice", batch, training, unseen=("classifier.bias",)
    )


@both_modes
@lengths
def test_token_classification(tmp_path: Path, seq_len: int, training: bool) -> None:
    folder = save_twin(tmp_path, "BigBirdForTokenClassification", **SMALL, num_labels=5)
    batch = random_batch(2, seq_len, padding=9)
    batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"] % 5, -100)
    assert_equals_transformers(folder, "BigBirdForTokenClassification", batch, training)


@both_modes
@lengths
@pytest.mark.parametrize("question", ["separator", "lengths", "vectors"])
def test_question_answering(tmp_path: Path, seq_len: int, training: bool, question: str) -> None:
    folder = save_twin(tmp_path, "BigBirdForQuestionAnswering", **SMALL)
    batch = random_batch(2, seq_len, padding=9)
    batch["input_ids"][0, 12] = batch["input_ids"][1, 7] = SEPARATOR
    del batch["token_type_ids"]
    batch["start_positions"] = torch.tensor([20, 15])
    batch["end_positions"] = torch.tensor([24, 10_000])  # beyond the input: ignored
    if question == "lengths":
        batch["question_lengths"] = torch.tensor([[5], [9]])
    if question == "vectors":  # the length of the question is unknown
        del batch["input_ids"]
        batch["inputs_embeds"] = torch.randn(2, seq_len, TINY["hidden_size"])
    assert_equals_transformers(
        folder,
        "BigBirdForQuestionAnswering",
        batch,
        training,
        ("start_logits", "end_logits"),
        ("qa_classifier.output.LayerNorm.bias", "qa_outputs.bias"),
    )


@lengths
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_question_answering_in_16_bit(tmp_path: Path, seq_len: int, dtype: torch.dtype) -> None:
    folder = save_twin(tmp_path, "BigBirdForQuestionAnswering", **SMALL)
    batch = random_batch(2, seq_len)
    batch["input_ids"][0, 12] = batch["input_ids"][1, 7] = SEPARATOR
    del batch["token_type_ids"]
    batch["start_positions"] = torch.tensor([20, 15])
    batch["end_positions"] = torch.tensor([24, 30])
    theirs = load_twin(folder, "BigBirdForQuestionAnswering", dtype=dtype)
    ours = BigBirdForQuestionAnswering.from_pretrained(folder, dtype=dtype)
    expected, found = theirs(**batch), ours(**batch)
    assert found.loss.isfinite() and found.loss.dtype == expected.loss.dtype == torch.float32
    digits = 4 * torch.finfo(dtype).eps  # scores are about 1, rounded by every layer before them
    for name in ("start_logits", "end_logits"):
        assert found[name].dtype == expected[name].dtype
        torch.testing.assert_close(found[name], expected[name], rtol=digits, atol=digits)
    torch.testing.assert_close(found.loss, expected.loss, rtol=digits, atol=digits)
    expected.loss.backward()
    found.loss.backward()
    weight = "qa_classifier.qa_outputs.weight"
    gradients = [model.get_parameter(weight).grad.float() for model in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0.05, atol=0.05 * gradients[1].abs().max().item())


def test_the_answer_is_never_in_the_question() -> None:
    torch.manual_seed(0)
    model = BigBirdForQuestionAnswering(bigbird_ds.BigBirdConfig(**TINY, **SMALL)).eval()
    batch = random_batch(1, 60)
    batch["input_ids"][0, 12] = SEPARATOR
    output = model(**batch)
    for logits in (output.start_logits[0], output.end_logits[0]):
        assert (logits[1:13] < -9e5).all()
        assert (logits[13:].abs() < 100).all() and logits[0].abs() < 100


def test_positional_arguments_mean_what_they_mean_in_transformers(tmp_path: Path) -> None:
    folder = save_twin(tmp_path, "BigBirdForQuestionAnswering", **SMALL)
    batch = random_batch(2, 60, padding=9)
    arguments = (batch["input_ids"], batch["attention_mask"], torch.tensor([[4], [8]]))
    expected = load_twin(folder, "BigBirdForQuestionAnswering").eval()(*arguments)
    found = BigBirdForQuestionAnswering.from_pretrained(folder)(*arguments)
    assert_close(found.start_logits, expected.start_logits)


@pytest.mark.parametrize(
    "class_name",
    [
        "BigBirdForCausalLM",
        "BigBirdForMaskedLM",
        "BigBirdForMultipleChoice",
        "BigBirdForQuestionAnswering",
        "BigBirdForSequenceClassification",
        "BigBirdForTokenClassification",
    ],
)
def test_a_pretrained_checkpoint_starts_every_task(tmp_path: Path, class_name: str) -> None:
    folder = save_twin(tmp_path / "pretrained", "BigBirdForPreTraining", **SMALL)
    model = getattr(bigbird_ds, class_name).from_pretrained(folder)
    pretrained = BigBirdForPreTraining.from_pretrained(folder)
    body = pretrained.bert.state_dict()
    for name, tensor in model.bert.state_dict().items():
        assert torch.equal(tensor, body[name]), name
    model.save_pretrained(tmp_path / "task")
    theirs = load_twin(tmp_path / "task", class_name)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_options_of_the_base_model_reach_it_and_misspelt_ones_are_refused() -> None:
    model = BigBirdForSequenceClassification(bigbird_ds.BigBirdConfig(**TINY, **SMALL)).eval()
    output = model(**random_batch(1, 20), output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 3 and len(output.attentions) == 2
    with pytest.raises(TypeError, match="output_hiden_states"):
        model(**random_batch(1, 20), output_hiden_states=True)
