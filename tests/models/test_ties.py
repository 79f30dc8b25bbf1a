"""Tensors that the config ties and the file holds twice: equal ones are tied, others are not."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.pegasus_twin import pegasus_batch, save_pegasus_twin
from support.transformers_twin import assert_close, load_twin, random_batch, save_twin
from torch import nn

from bigbird_ds import BigBirdForSequenceClassification
from bigbird_ds.cli.main import main
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.auto import MODEL_CLASSES, load_pretrained

PEGASUS = "BigBirdPegasusForConditionalGeneration"
WORDS, DECODER = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
SHARED = "model.shared.weight"
TIES = [
    ("BigBirdForPreTraining", DECODER, WORDS),
    ("BigBirdForMaskedLM", DECODER, WORDS),
    ("BigBirdForCausalLM", DECODER, WORDS),
    ("BigBirdForPreTraining", "cls.predictions.decoder.bias", "cls.predictions.bias"),
    (PEGASUS, "lm_head.weight", SHARED),
    (PEGASUS, "model.encoder.embed_tokens.weight", SHARED),
    (PEGASUS, "model.decoder.embed_tokens.weight", SHARED),
    ("BigBirdPegasusForQuestionAnswering", "model.decoder.embed_tokens.weight", SHARED),
]


def save_both(folder: Path, name: str, copy: str, source: str, shift: float) -> Path:
    """A transformers folder whose config ties, with ``copy`` = ``source`` + noise added."""
    if "Pegasus" in name:
        save_pegasus_twin(folder, name, tie_word_embeddings=True)
    else:
        save_twin(folder, name, is_decoder=name.endswith("CausalLM"))
    tensors = load_file(folder / "model.safetensors")
    assert copy not in tensors
    tensors[copy] = tensors[source] + shift * torch.randn_like(tensors[source])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def logits(model: Any, seq_len: int = 70) -> torch.Tensor:
    pegasus = "Pegasus" in type(model).__name__
    batch = pegasus_batch(2, seq_len, 9) if pegasus else random_batch(2, seq_len)
    if not type(model).__name__.endswith("Generation"):
        batch.pop("labels", None)
    with torch.no_grad():
        output = model.eval()(**batch)
    return next(
        output[key] for key in ("logits", "prediction_logits", "start_logits") if key in output
    )


@pytest.mark.parametrize(("name", "copy", "source"), TIES)
def test_different_copies_load_untied_as_in_transformers_and_stay_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, copy: str, source: str
) -> None:
    save_both(tmp_path / "theirs", name, copy, source, shift=1.0)
    expected = logits(load_twin(tmp_path / "theirs", name))
    with caplog.at_level(logging.WARNING, "bigbird_ds"):
        model = MODEL_CLASSES[name].from_pretrained(tmp_path / "theirs")
    assert copy in caplog.text and "untied" in caplog.text
    assert model.config.tie_word_embeddings is False
    assert_close(logits(model), expected)

    caplog.clear()
    model.save_pretrained(tmp_path / "ours", max_shard_size="20KB")
    assert json.loads((tmp_path / "ours/config.json").read_text())["tie_word_embeddings"] is False
    stored = json.loads((tmp_path / "ours/model.safetensors.index.json").read_text())["weight_map"]
    assert {copy, source} <= stored.keys()
    assert_close(logits(load_pretrained(tmp_path / "ours")), expected)
    theirs, info = getattr(transformers, name).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values())
    assert_close(logits(theirs), expected)
    assert "untied" not in caplog.text


@pytest.mark.parametrize(("name", "copy", "source"), TIES)
def test_equal_copies_are_one_parameter_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, copy: str, source: str
) -> None:
    save_both(tmp_path, name, copy, source, shift=0.0)
    with caplog.at_level(logging.WARNING, "bigbird_ds"):
        model = MODEL_CLASSES[name].from_pretrained(tmp_path)
    assert not caplog.text and model.config.tie_word_embeddings
    assert model.get_parameter(copy) is model.get_parameter(source)


def test_a_copy_that_the_class_does_not_have_unties_nothing(tmp_path: Path) -> None:
    save_both(tmp_path, "BigBirdForMaskedLM", DECODER, WORDS, shift=1.0)
    assert BigBirdForSequenceClassification.from_pretrained(tmp_path).config.tie_word_embeddings


@pytest.mark.parametrize("name", ["BigBirdForMaskedLM", PEGASUS])
def test_a_tie_that_was_cut_in_memory_is_saved_as_such(tmp_path: Path, name: str) -> None:
    save = save_pegasus_twin if "Pegasus" in name else save_twin
    model = MODEL_CLASSES[name].from_pretrained(save(tmp_path / "theirs", name))
    head = model.get_output_embeddings()
    torch.manual_seed(0)
    model.set_output_embeddings(nn.Linear(16, head.out_features, bias=head.bias is not None))
    expected = logits(model)
    model.save_pretrained(tmp_path / "ours")
    assert_close(logits(load_pretrained(tmp_path / "ours")), expected)
    assert_close(logits(load_twin(tmp_path / "ours", name)), expected)


def test_import_and_verify_tell_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_both(tmp_path / "theirs", "BigBirdForMaskedLM", DECODER, WORDS, shift=1.0)
    expected = logits(load_twin(source, "BigBirdForMaskedLM"))
    assert main(["verify", str(source), "--deep"]) == 0
    assert "the tensors differ" in capsys.readouterr().out
    out = tmp_path / "out"
    assert main(["import", str(source), str(out)]) == 0
    report = json.loads((out / "import_report.json").read_text())
    assert "tie_word_embeddings false" in report["differences"][0]
    assert_close(logits(load_pretrained(out)), expected)
    capsys.readouterr()
    assert main(["verify", str(out), "--deep"]) == 0
    assert "differ" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["BigBirdForPreTraining", PEGASUS])
def test_a_state_dict_is_saved_and_loaded_instead_of_the_models(tmp_path: Path, name: str) -> None:
    save = save_pegasus_twin if "Pegasus" in name else save_twin
    model = MODEL_CLASSES[name].from_pretrained(save(tmp_path / "theirs", name))
    expected = logits(model)
    # as ZeRO-3 gathers it: full, separate tensors, without the tied ones or with copies of them
    apart = {key: value.clone() for key, value in model.state_dict().items()}
    without = {key: value for key, value in apart.items() if key not in model.tied_names}
    for parameter in model.parameters():
        parameter.data.zero_()
    for state in (apart, without):
        model.save_pretrained(tmp_path / "ours", state_dict=state)
        stored = load_file(tmp_path / "ours/model.safetensors")
        assert stored.keys() == without.keys()
        assert_close(logits(load_pretrained(tmp_path / "ours")), expected)
    again = type(model).from_pretrained(None, config=model.config, state_dict=apart)
    assert_close(logits(again), expected)
    with pytest.raises(ConfigError, match="does not match the model"):
        model.save_pretrained(tmp_path / "ours", state_dict={**without, "other": torch.ones(1)})
    model.save_pretrained(tmp_path / "none", is_main_process=False)
    assert not (tmp_path / "none").exists()
