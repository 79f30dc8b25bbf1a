"""An import equals the checkpoint, or its warm start; a broken source writes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commands import contents
from support.corpus import TINY_MODEL, Corpus
from support.distributed import run_distributed
from support.runs import changed, losses, train_one

from bigbird_ds import BigBirdForMaskedLM
from bigbird_ds.cli.main import main
from bigbird_ds.hub.auto import load_pretrained
from bigbird_ds.training.config.file import load_run_config

transformers = pytest.importorskip("transformers", reason="transformers writes the checkpoints")

SHAPE = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "initializer_range": 0.15,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
BLOCKS = {"block_size": 4, "num_random_blocks": 2, "max_position_embeddings": 64}


def write_checkpoint(folder: Path, name: str, shard_size: str = "50GB", **settings: Any) -> Path:
    """A folder saved by transformers, with random weights, biases and norms."""
    torch.manual_seed(3)
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class(**{**SHAPE, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size=shard_size)
    return folder


def bigbird(folder: Path, **settings: Any) -> Path:
    return write_checkpoint(folder, "BigBirdForPreTraining", **{**BLOCKS, **settings})


def do_import(source: Path, out: Path, *words: str) -> dict[str, Any]:
    """Run the command; return its written report."""
    assert main(["import", str(source), str(out), *words]) == 0
    report: dict[str, Any] = json.loads((out / "import_report.json").read_text())
    return report


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder's safetensors files."""
    tensors: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def assert_same_tensors(found: Path, wanted: Path) -> None:
    ours, theirs = stored(found), stored(wanted)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize(
    ("name", "shard_size"),
    [
        ("BigBirdForPreTraining", "50GB"),
        ("BigBirdForPreTraining", "8KB"),
        ("BigBirdForQuestionAnswering", "50GB"),
        ("BigBirdModel", "50GB"),
    ],
)
def test_a_bigbird_checkpoint_comes_out_with_the_same_bits(
    tmp_path: Path, name: str, shard_size: str
) -> None:
    source = write_checkpoint(tmp_path / "source", name, shard_size, **BLOCKS)
    assert (len(list(source.glob("*.safetensors"))) > 1) == (shard_size == "8KB")
    report = do_import(source, tmp_path / "out")
    assert_same_tensors(tmp_path / "out", source)
    assert report["model_class"] == name
    assert report["fresh"] == report["left_out"] == report["differences"] == []
    theirs = transformers.AutoConfig.from_pretrained(source).to_dict()
    ours = transformers.AutoConfig.from_pretrained(tmp_path / "out").to_dict()
    for value in (theirs, ours):
        value.pop("_name_or_path", None)
    assert ours.pop("random_style") == "hf"
    assert ours == theirs


@pytest.mark.parametrize(
    ("words", "style", "said"),
    [
        ([], "hf", "the checkpoints that Google released were trained with google"),
        (["--random-style", "google"], "google", "as --random-style says"),
    ],
)
def test_the_random_style_is_said_and_can_be_chosen(
    words: list[str], style: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = bigbird(tmp_path / "source")
    do_import(source, tmp_path / "out", *words)
    assert f"random style: {style}, " in (shown := capsys.readouterr().out) and said in shown
    assert json.loads((tmp_path / "out" / "config.json").read_text())["random_style"] == style
    do_import(tmp_path / "out", tmp_path / "again")
    assert f"random style: {style}, as in the source's config.json" in capsys.readouterr().out


def test_an_unknown_random_style_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = bigbird(tmp_path / "source")
    assert main(["import", str(source), str(tmp_path / "out"), "--random-style", "gogle"]) == 2
    assert "unknown --random-style" in (said := capsys.readouterr().err)
    assert "did you mean 'google'?" in said and "change: --random-style" in said
    assert not (tmp_path / "out").exists()


def test_bfloat16_stays_bfloat16(tmp_path: Path) -> None:
    source = bigbird(tmp_path / "source")
    halves = {name: value.bfloat16() for name, value in stored(source).items()}
    save_file(halves, source / "model.safetensors")  # config.json still says float32
    assert do_import(source, tmp_path / "out")["dtype"] == "bfloat16"
    assert_same_tensors(tmp_path / "out", source)


@pytest.mark.parametrize("sharded", [False, True])
def test_an_old_bin_checkpoint_with_old_names_gives_the_same_bits(
    tmp_path: Path, sharded: bool
) -> None:
    source = bigbird(tmp_path / "source")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in stored(source).items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(64)[None]
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"]
    old["cls.predictions.decoder.bias"] = old["cls.predictions.bias"]
    binary = tmp_path / "binary"
    binary.mkdir()
    shutil.copyfile(source / "config.json", binary / "config.json")
    if sharded:
        names = sorted(old)
        parts = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
        for file_name, part in parts.items():
            torch.save({name: old[name] for name in part}, binary / file_name)
        weight_map = {name: file_name for file_name, part in parts.items() for name in part}
        index = binary / "pytorch_model.bin.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    else:
        torch.save(old, binary / "pytorch_model.bin")
    assert do_import(binary, tmp_path / "out")["left_out"] == []
    assert_same_tensors(tmp_path / "out", source)


def test_positions_are_extended_by_repeating_them(tmp_path: Path) -> None:
    source = bigbird(tmp_path / "source")
    report = do_import(source, tmp_path / "out", "--extend-positions", "160")
    assert report["positions"] == [64, 160]
    name = "bert.embeddings.position_embeddings.weight"
    before, after = stored(source), stored(tmp_path / "out")
    assert torch.equal(after[name], torch.cat([before[name], before[name], before[name][:32]]))
    assert all(torch.equal(after[key], before[key]) for key in before if key != name)
    model = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "out")
    assert model(torch.ones(1, 160, dtype=torch.long)).prediction_logits.shape == (1, 160, 120)


def test_a_roberta_checkpoint_computes_the_same_logits_as_a_bigbird(tmp_path: Path) -> None:
    source = write_checkpoint(
        tmp_path / "source", "RobertaForMaskedLM", max_position_embeddings=66, type_vocab_size=1
    )
    report = do_import(source, tmp_path / "out")
    assert (report["source_type"], report["model_class"]) == ("roberta", "BigBirdForMaskedLM")
    assert report["positions"] == [64, 64]
    assert report["fresh"] == ["bert.pooler.weight", "bert.pooler.bias"]
    assert len(report["differences"]) == 4
    ids = torch.randint(3, 120, (2, 60))
    theirs = transformers.RobertaForMaskedLM.from_pretrained(source).eval()
    for ours in (
        load_pretrained(tmp_path / "out"),
        transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out"),
    ):
        with torch.no_grad():
            for types in (None, torch.zeros_like(ids), torch.ones_like(ids)):
                found = ours(ids, token_type_ids=types).logits
                torch.testing.assert_close(found, theirs(ids).logits, rtol=0, atol=1e-5)
    assert (ours.config.pad_token_id, ours.config.sep_token_id) == (1, 2)


def test_a_bert_checkpoint_computes_the_same_logits_as_a_bigbird(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "BertForPreTraining", max_position_embeddings=64)
    report = do_import(source, tmp_path / "out", "--extend-positions", "128")
    assert report["fresh"] == report["left_out"] == []
    ids, types = torch.randint(1, 120, (2, 60)), torch.randint(0, 2, (2, 60))
    theirs = transformers.BertForPreTraining.from_pretrained(source).eval()
    ours = load_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected, found = theirs(ids, token_type_ids=types), ours(ids, token_type_ids=types)
    for name in ("prediction_logits", "seq_relationship_logits"):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5)


def test_a_bare_encoder_and_a_foreign_head_give_the_encoder(tmp_path: Path) -> None:
    for name in ("BertModel", "BertForTokenClassification"):
        source = write_checkpoint(
            tmp_path / name, name, max_position_embeddings=64, type_vocab_size=3
        )
        report = do_import(source, tmp_path / f"out-{name}")
        assert report["model_class"] == "BigBirdModel"
        head = ["classifier.bias", "classifier.weight"] if "Token" in name else []
        assert sorted(report["left_out"]) == head
        prefix = "bert." if "Token" in name else ""
        before, after = stored(source), stored(tmp_path / f"out-{name}")
        for table in ("word_embeddings", "token_type_embeddings"):
            key = f"embeddings.{table}.weight"
            assert torch.equal(after[key], before[prefix + key])


def test_the_tokenizer_comes_along_and_is_made_where_only_spiece_model_is_there(
    tmp_path: Path, corpus: Corpus
) -> None:
    whole = bigbird(tmp_path / "whole", vocab_size=500)
    for path in corpus.tokenizer.iterdir():
        shutil.copyfile(path, whole / path.name)
    bare = bigbird(tmp_path / "bare", vocab_size=500)
    shutil.copyfile(corpus.tokenizer / "spiece.model", bare / "spiece.model")
    for source in (whole, bare):
        out = tmp_path / f"out-{source.name}"
        report = do_import(source, out)
        assert set(report["tokenizer"]) == {path.name for path in corpus.tokenizer.iterdir()}
        for name in ("spiece.model", "tokenizer.json"):
            assert (out / name).read_bytes() == (corpus.tokenizer / name).read_bytes()
        config = json.loads((corpus.tokenizer / "tokenizer_config.json").read_text())
        positions = json.loads((out / "config.json").read_text())["max_position_embeddings"]
        assert json.loads((out / "tokenizer_config.json").read_text()) == {
            **config,
            "model_max_length": positions,
        }
        assert main(["verify", str(out)]) == 0


@pytest.mark.launch
def test_an_import_is_the_start_of_a_training_run(
    tmp_path: Path, corpus: Corpus, run_settings: dict[str, Any]
) -> None:
    shape = {key: value for key, value in TINY_MODEL.items() if key != "max_position_embeddings"}
    source = write_checkpoint(
        tmp_path / "source",
        "BertForMaskedLM",
        **{**shape, "vocab_size": 500, "max_position_embeddings": 64, "initializer_range": 0.02},
    )
    out = tmp_path / "out"
    do_import(source, out, "--extend-positions", "256")
    settings = changed(run_settings, model=str(out), objective={"name": "mlm"})
    settings["train"]["steps"] = 1
    settings["schedule"]["warmup_steps"] = 0
    settings["optimizer"]["lr"] = 1e-9  # what is saved is what was imported, except this
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(settings))
    config = load_run_config(path, ["model.block_size=16", "model.num_random_blocks=1"])
    assert str(config.initial_weights) == str(out)
    (lines,) = run_distributed(train_one, 1, config.model_dump(mode="json"))
    assert len(losses(lines)) == 1
    trained = BigBirdForMaskedLM.from_pretrained(Path(settings["output"]) / "checkpoints/step-1")
    before = BigBirdForMaskedLM.from_pretrained(out).state_dict()
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-7)


def truncate(source: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def edit_config(source: Path, **values: Any) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | values))


def edit_tensors(source: Path, name: str, value: torch.Tensor | None) -> None:
    tensors = stored(source)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, source / "model.safetensors")


def poison(source: Path, content: bytes | None = None) -> None:
    """A pickle that would run code, or ``content``; it must be refused."""
    (source / "model.safetensors").unlink()
    if content is None:
        torch.save({"x": Touch(source / "touched")}, source / "pytorch_model.bin")
    else:
        (source / "pytorch_model.bin").write_bytes(content)


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


BROKEN: dict[str, tuple[Any, list[str]]] = {
    "another architecture": (
        lambda source: edit_config(source, model_type="gpt2"),
        ["a different architecture", "gpt2", "bert, big_bird"],
    ),
    "a missing tensor": (
        lambda source: edit_tensors(source, "bert.encoder.layer.1.output.dense.weight", None),
        ["are missing", "bert.encoder.layer.1.output.dense.weight (16, 24)"],
    ),
    "a misshapen tensor": (
        lambda source: edit_tensors(source, "bert.pooler.weight", torch.ones(16, 15)),
        ["do not match the config", "bert.pooler.weight (16, 15)", "bert.pooler.weight (16, 16)"],
    ),
    "a number that is none": (
        lambda source: edit_tensors(
            source, "bert.pooler.bias", torch.tensor([0.0] * 15 + [torch.nan])
        ),
        ["not finite", "bert.pooler.bias, from "],
    ),
    "a truncated file": (truncate, ["cannot be read", "model.safetensors"]),
    "contradictory values": (
        lambda source: edit_config(source, num_attention_heads=3),
        ["not a multiple", "hidden_size 16, 3 heads"],
    ),
    "a value of the wrong type": (
        lambda source: edit_config(source, hidden_size="16"),
        ["hidden_size is of the wrong type", '"16"'],
    ),
    "fewer layers than on file": (
        lambda source: edit_config(source, num_hidden_layers=1),
        ["do not belong to its config", "bert.encoder.layer.1.attention", "(1 layers)"],
    ),
    "no weights": (
        lambda source: (source / "model.safetensors").unlink(),
        ["holds no weights"],
    ),
    "a bin file with code in it": (
        poison,
        ["cannot be read", "pytorch_model.bin: its pickle needs getattr", "no code was run"],
    ),
    "a bin file of another program": (
        lambda source: poison(source, b"hello world"),
        ["cannot be read", "pytorch_model.bin: it was not written by torch.save"],
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_checkpoint_is_a_user_error_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    source = bigbird(tmp_path / "source")
    breaks, words = BROKEN[what]
    breaks(source)
    before = contents(tmp_path)
    assert main(["import", str(source), str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "weights_only" not in message and "arbitrary" not in message
    for word in [*words, "  seen:   ", "  needed: ", "  change: "]:
        assert word in message
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_hub_name_and_a_run_are_not_folders_in_hub_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(source: str) -> str:
        assert main(["import", source, str(tmp_path / "out")]) == 2
        return capsys.readouterr().err

    assert "`hf download google/bigbird --local-dir DIR`" in refused("google/bigbird")
    run = tmp_path / "run"
    for name in ("step-2", "step-10"):
        (run / "checkpoints" / name).mkdir(parents=True)
    assert f"change: HUB_FOLDER: {run}/checkpoints/step-10 is the newest" in refused(str(run))
    assert f"no file {tmp_path}/config.json" in refused(str(tmp_path))
    assert f"no file {tmp_path}/none/config.json" in refused(f"{tmp_path}/none")


def test_broken_warm_starts_name_the_table_and_both_shapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_checkpoint(
        tmp_path / "source", "RobertaForMaskedLM", max_position_embeddings=66, type_vocab_size=1
    )
    edit_config(source, max_position_embeddings=70)
    assert main(["import", str(source), str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "position_embeddings.weight (66, 16)" in message
    assert "position_embeddings.weight (70, 16)" in message
    edit_config(source, max_position_embeddings=66, position_embedding_type="relative_key")
    assert main(["import", str(source), str(tmp_path / "out")]) == 2
    assert "relative_key" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("positions", ["64", "32", "130"])
def test_positions_that_extend_nothing_or_fit_no_block_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], positions: str
) -> None:
    source = bigbird(tmp_path / "source")
    words = ["import", str(source), str(tmp_path / "out"), "--extend-positions", positions]
    assert main(words) == 2
    assert "more than 64, and a multiple of the block size 4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_import_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bigbird(tmp_path / "source")
    before = contents(source)
    assert main(["import", str(source), str(source)]) == 2
    assert "output folder is not empty" in capsys.readouterr().err
    assert contents(source) == before
