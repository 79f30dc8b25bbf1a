"""What an evaluation notes of the model's predictions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.corpus import Corpus
from support.distributed import run_distributed
from support.pegasus_corpus import pegasus_run_settings
from support.runs import changed, train_all
from support.tiny_models import tiny_bigbird

from bigbird_ds.hub.run_samples import read_samples
from bigbird_ds.models.bigbird.masked_lm import BigBirdForMaskedLM
from bigbird_ds.training.evaluation.samples import SampleTaker, samples_of
from bigbird_ds.vocabulary import Vocabulary


def test_masked_words_stand_in_their_context_with_what_the_model_says(corpus: Corpus) -> None:
    vocabulary = Vocabulary.from_folder(corpus.tokenizer)
    words = [index for index, piece in enumerate(vocabulary.pieces) if len(piece) > 3][-6:]
    seen = torch.tensor([[vocabulary.cls, words[0], vocabulary.mask, vocabulary.mask, words[3], 0]])
    batch = {
        "input_ids": seen,
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0]]),
        "target_positions": torch.tensor([[3, 2, 0]]),
        "target_ids": torch.tensor([[words[2], words[1], -100]]),
    }
    (sample,) = samples_of(batch, torch.tensor([words[5], words[4], 0]), vocabulary)

    def text(ids: list[int]) -> str:
        return " ".join(vocabulary.text(ids).split())

    assert sample == {
        "masked": [
            {
                "before": text([vocabulary.cls, words[0]]),
                "target": text([words[1], words[2]]),
                "predicted": text([words[4], words[5]]),
                "after": text([words[3]]),
            }
        ]
    }
    assert samples_of(batch, torch.tensor([1, 2]), vocabulary) == []
    # The model may have more ids than the tokenizer.
    (sample,) = samples_of(batch, torch.tensor([words[5], vocabulary.size, 0]), vocabulary)
    predicted = f"<id {vocabulary.size}> {text([words[5]])}"
    assert " ".join(sample["masked"][0]["predicted"].split()) == predicted


def test_the_predictions_are_those_that_the_accuracy_counts(corpus: Corpus) -> None:
    vocabulary = Vocabulary.from_folder(corpus.tokenizer)
    torch.manual_seed(0)
    model = BigBirdForMaskedLM(tiny_bigbird(vocab_size=vocabulary.size)).eval()
    batch = {
        "input_ids": torch.randint(8, vocabulary.size, (2, 32)),
        "attention_mask": torch.ones(2, 32, dtype=torch.int64),
        "token_type_ids": torch.zeros(2, 32, dtype=torch.int64),
        "target_positions": torch.tensor([[3, 7, 11], [2, 5, 9]]),
    }
    with torch.no_grad():
        likeliest = model(**{name: batch[name] for name in list(batch)[:3]}).logits.argmax(-1)
    right = likeliest.gather(1, batch["target_positions"])
    batch["target_ids"] = torch.where(torch.tensor([True, False, True]), right, right ^ 1)
    run: Any = SimpleNamespace(
        ranks=SimpleNamespace(is_first=True),
        model=model,
        engine=lambda batch: model.loss_sums(**batch),
        objective=SimpleNamespace(vocabulary=vocabulary),
    )
    taker = SampleTaker(run)
    assert taker.forward(batch)["mlm_correct"] == 4
    places = [place for sample in taker.samples for place in sample["masked"]]
    predicted = [vocabulary.text([each]).strip() for each in right.flatten().tolist()]
    assert [place["predicted"] for place in places] == predicted
    assert not model.get_output_embeddings()._forward_hooks


@pytest.mark.launch
def test_samples_are_written_under_zero_3_and_sequence_parallelism(
    run_settings: dict[str, Any], pegasus_corpus: Corpus, tmp_path: Path
) -> None:
    few = {"train.steps": 2, "train.eval_every": 1, "train.eval_windows": 8}
    zero_3 = {
        "data.validation": run_settings["data"]["train"],
        "deepspeed.zero_optimization.stage": 3,
        "deepspeed.zero_optimization.stage3_param_persistence_threshold": 0,
    }
    generating = pegasus_run_settings(pegasus_corpus, tmp_path / "generating")
    runs = [
        changed(run_settings, **few | zero_3),
        changed(generating, **few | {"parallel.sequence": 2}),
    ]
    run_distributed(train_all, 2, runs)
    masking, both = (read_samples(Path(run["output"])) for run in runs)
    for name, records in (("mlm_nsp", masking), ("gap_sentences", both)):
        assert [record["step"] for record in records] == [1, 2]
        for record in records:
            assert record["objective"] == name and len(record["samples"]) == 3
            assert any(sample.get("masked") for sample in record["samples"])
    assert all(set(sample) == {"masked"} for record in masking for sample in record["samples"])
    targets = [[sample["target"] for sample in record["samples"]] for record in both]
    assert targets[0] == targets[1] and all(targets[0])
    assert all(sample["prediction"] for record in both for sample in record["samples"])
