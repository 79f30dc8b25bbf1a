"""``bigbird-ds evaluate``: losses by visible length, of models as small as the tests' corpus."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import contents
from support.corpus import TINY_MODEL, Corpus
from torch.nn import functional as F

from bigbird_ds import BigBirdConfig, BigBirdForMaskedLM
from bigbird_ds.cli.main import main
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import ConfigError, DataError
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus.generation import BigBirdPegasusForConditionalGeneration
from bigbird_ds.objectives.pretraining import MaskedLanguageModel, MaskingOptions
from bigbird_ds.training.evaluation.spread import ratio
from bigbird_ds.training.evaluation.trained_model import TrainedModel
from bigbird_ds.training.evaluation.visible_length import CutWindows, check_lengths, measure


@pytest.fixture(scope="module")
def exported(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights in Hub format, with the corpus' tokenizer."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    config = BigBirdConfig(**TINY_MODEL, vocab_size=500, initializer_range=0.2)
    BigBirdForMaskedLM(config).save_pretrained(folder)
    shutil.copy(corpus.tokenizer / "spiece.model", folder)
    return folder


def error(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """The four-part message of a command that must fail with exit code 2."""
    assert main(["evaluate", *map(str, words)]) == 2
    message = capsys.readouterr().err
    for part in ("\n  seen:   ", "\n  needed: ", "\n  change: "):
        assert part in message, message
    return message


def test_losses_by_visible_length_are_printed_written_and_drawn(
    exported: Path, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png, file = tmp_path / "new" / "curve.png", tmp_path / "curve.json"
    words = ["evaluate", exported, corpus.shards, "--lengths", 256, 64, 96, "--split", "train"]
    words += ["--windows", 5, "--out", png, "--json", file]
    assert main(list(map(str, words))) == 0
    out = capsys.readouterr().out
    assert "standard error over documents" in out and "bits, from 64 tokens" in out
    assert png.stat().st_size > 1000
    content = json.loads(file.read_text())
    assert [each["length"] for each in content["lengths"]] == [64, 96, 256]
    assert [each["attention"] for each in content["lengths"]] == ["full", "full", "block sparse"]
    assert content["windows"] == 5
    parts = [each["parts"][0] for each in content["lengths"]]
    assert len({part["targets"] for part in parts}) == 1  # the same targets
    assert parts[0]["bits_change"] is None and parts[0]["loss"]["error"] > 0
    change = parts[2]["bits"]["value"] - parts[0]["bits"]["value"]
    assert change != 0 and parts[2]["bits_change"]["value"] == pytest.approx(change)
    assert f"{parts[1]['loss']['value']:.4f} +- {parts[1]['loss']['error']:.4f}" in out

    # The losses are those of the model's own forward pass, window by window.
    trained = TrainedModel.load(exported, "cpu", torch.float32)
    windows = CutWindows(Shards(corpus.shards, "train"), trained, [64, 96, 256], 0, 5)
    losses, targets = np.zeros(3), 0
    for _, examples in windows:
        targets += examples[0]["target_ids"].numel()
        for i, example in enumerate(examples):
            with torch.no_grad():
                logits = trained.model(example["input_ids"]).logits
            at = logits[0, example["target_positions"][0]]
            losses[i] += F.cross_entropy(at, example["target_ids"][0], reduction="sum").item()
    assert targets == parts[0]["targets"]
    means = [part["loss"]["value"] for part in parts]
    assert means == pytest.approx(list(losses / targets), rel=1e-5)


@pytest.fixture(scope="module")
def exported_pegasus(pegasus_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for gap sentences."""
    folder = tmp_path_factory.mktemp("exported_pegasus")
    sizes: dict[str, Any] = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    sizes |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")}
    config = BigBirdPegasusConfig(
        **sizes, vocab_size=500, block_size=16, num_random_blocks=1, max_position_embeddings=256
    )
    BigBirdPegasusForConditionalGeneration(config).save_pretrained(folder)
    shutil.copy(pegasus_corpus.tokenizer / "spiece.model", folder)
    return folder


def test_gap_sentences_are_generated_from_a_source_that_is_cut(
    exported_pegasus: Path, pegasus_corpus: Corpus, tmp_path: Path
) -> None:
    words = [exported_pegasus, pegasus_corpus.shards, "--lengths", 96, 256, "--windows", 3]
    file = tmp_path / "found.json"
    assert main(["evaluate", *map(str, words), "--split", "train", "--json", str(file)]) == 0
    found = [each["parts"] for each in json.loads(file.read_text())["lengths"]]
    assert [[part["part"] for part in parts] for parts in found] == [["target"], ["target"]]
    assert found[0][0]["targets"] == found[1][0]["targets"] > 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--lengths", 64, 512], "longer than the model has positions"),
        (["--lengths", 40], "not a multiple of the block size"),
        (["--lengths", 0], "not a multiple of the block size"),
        (["--lengths", 64, 64], "given twice"),
        (["--lengths", 64, "--windows", 0], "number of windows"),
        (["--lengths", 64, "--split", "test"], "unknown split"),
        (["--lengths", 64, "--device", "nonsense"], "device"),
        (["--lengths", 64, "--out", "curve.jpg"], "PNG"),
        (["--out", "curve.png"], "without --lengths"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(
    words: list[Any],
    problem: str,
    exported: Path,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in words else ["--out", "curve.png"]
    message = error(capsys, exported, corpus.shards, *words, *out, "--json", "numbers.json")
    assert problem in message
    assert not contents(tmp_path)


def test_windows_without_any_target_are_an_error(exported: Path) -> None:
    trained = TrainedModel.load(exported, "cpu", torch.float32)
    empty = trained.objective.empty_example(64)
    example = {name: torch.from_numpy(field)[None] for name, field in empty.items()}
    for windows in ([], [(0, [example])]):
        with pytest.raises(DataError, match="no window has a target"):
            measure(trained, iter(windows), 1)


def test_lengths_beyond_all_documents_and_other_folders_are_refused(
    exported: Path, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BigBirdConfig(**TINY_MODEL | {"max_position_embeddings": 65536}, vocab_size=500)
    BigBirdForMaskedLM(config).save_pretrained(tmp_path / "long")
    shutil.copy(corpus.tokenizer / "spiece.model", tmp_path / "long")
    message = error(capsys, tmp_path / "long", corpus.shards, "--lengths", 64, 65536)
    assert "no document is as long" in message and "65,534 tokens" in message
    assert "no model to evaluate" in error(capsys, corpus.shards, corpus.shards)
    (tmp_path / "long" / "spiece.model").unlink()
    assert "holds no tokenizer" in error(capsys, tmp_path / "long", corpus.shards)


def test_an_objective_with_examples_of_its_own_must_say_how_they_are_cut(
    exported: Path, corpus: Corpus
) -> None:
    class Other(MaskedLanguageModel):
        def example(self, *arguments: Any, **options: Any) -> Any:
            return super().example(*arguments, **options)

    trained = TrainedModel.load(exported, "cpu", torch.float32)
    assert check_lengths([64, 32], trained) == [32, 64]
    other = Other(trained.objective.vocabulary, MaskingOptions())
    own = TrainedModel(trained.folder, trained.model, other, 0, 256)
    with pytest.raises(ConfigError, match="cut to several lengths"):
        check_lengths([64, 32], own)


def test_the_spread_is_that_of_a_mean_over_units() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 50)
    found = ratio(values * 4, np.full(50, 4.0))
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    assert ratio(np.array([6.0]), np.array([3.0])).error is None
    # Units of unequal size: the spread over many draws is what each of them estimates.
    generator = np.random.default_rng(1)
    means, errors = [], []
    for _ in range(400):
        counts = generator.integers(1, 20, 60).astype(float)
        drawn = ratio(counts * generator.normal(2.0, 0.5, 60), counts)
        means.append(drawn.value)
        errors.append(drawn.error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)
