"""A BigBirdPegasus of the Hub is imported bit by bit, and a run starts from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from support.corpus import Corpus
from support.distributed import run_distributed
from support.pegasus_corpus import TINY_PEGASUS_RUN, pegasus_run_settings
from support.pegasus_twin import PEGASUS_CLASSES, save_pegasus_twin
from support.runs import changed, losses, train_all
from support.sentencepiece_files import train_pegasus_of_the_hub

from bigbird_ds.cli.main import main
from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.vocabulary import Vocabulary

GENERATION = "BigBirdPegasusForConditionalGeneration"
BLOCKS = {"max_position_embeddings": 64, "block_size": 4, "num_random_blocks": 2}


def do_import(source: Path, out: Path, *words: str) -> dict[str, Any]:
    assert main(["import", str(source), str(out), *words]) == 0
    report: dict[str, Any] = json.loads((out / "import_report.json").read_text())
    return report


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def edit_config(folder: Path, remove: tuple[str, ...] = (), **values: Any) -> None:
    path = folder / "config.json"
    config = {
        key: value for key, value in json.loads(path.read_text()).items() if key not in remove
    }
    path.write_text(json.dumps(config | values))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("class_name", PEGASUS_CLASSES)
def test_every_class_goes_in_and_back_with_the_same_bits(
    tmp_path: Path, class_name: str, tied: bool
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    save_pegasus_twin(source, class_name, tie_word_embeddings=tied, **BLOCKS)
    report = do_import(source, out)
    assert report["model_class"] == class_name and report["positions"] == [64, 64]
    assert report["fresh"] == report["left_out"] == report["differences"] == []
    theirs, ours = stored(source), stored(out)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor), name
    assert ours.keys() == theirs.keys()

    model_class = getattr(transformers, class_name)
    model, info = model_class.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    model.save_pretrained(tmp_path / "again")
    again = stored(tmp_path / "again")
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)
    before, after = (
        transformers.AutoConfig.from_pretrained(folder).to_dict() for folder in (source, out)
    )
    assert after.pop("random_style") == "hf"
    for values in (before, after):
        values.pop("_name_or_path", None)
    assert after == before

    edit_config(source, remove=("architectures",))
    assert do_import(source, tmp_path / "unnamed")["model_class"] == class_name


def test_both_tables_of_positions_are_repeated(tmp_path: Path) -> None:
    source = save_pegasus_twin(tmp_path / "source", GENERATION, **BLOCKS)
    report = do_import(source, tmp_path / "out", "--extend-positions", "160")
    assert report["positions"] == [64, 160]
    before, after = stored(source), stored(tmp_path / "out")
    for stack in ("encoder", "decoder"):
        name = f"model.{stack}.embed_positions.weight"
        table = before.pop(name)
        assert torch.equal(after[name], torch.cat([table, table, table[:32]]))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    ids = torch.ones(1, 160, dtype=torch.long)
    assert model(ids, decoder_input_ids=ids[:, :150]).logits.shape == (1, 150, 120)


def test_the_generation_config_is_kept(tmp_path: Path) -> None:
    source = save_pegasus_twin(tmp_path / "source", GENERATION, **BLOCKS)
    wanted = {"num_beams": 5, "length_penalty": 0.8, "max_length": 48}
    path = source / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wanted))
    do_import(source, tmp_path / "file")
    assert (tmp_path / "file" / path.name).read_bytes() == path.read_bytes()

    path.unlink()  # as in old folders
    edit_config(source, **wanted)
    do_import(source, tmp_path / "config")
    for name in ("file", "config"):
        found = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / name)
        generation = found.generation_config
        assert {key: getattr(generation, key) for key in wanted} == wanted
        assert (generation.decoder_start_token_id, generation.eos_token_id) == (2, 1)


def test_a_spiece_model_of_the_hub_gets_its_ids_next_to_a_tokenizer_json(
    tmp_path: Path,
) -> None:
    source = save_pegasus_twin(tmp_path / "source", GENERATION, vocab_size=503, **BLOCKS)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copyfile(train_pegasus_of_the_hub(bare), source / "spiece.model")
    # In transformers 5 the two classes are one; in 4 the other does not write tokenizer.json.
    transformers.PegasusTokenizerFast.from_pretrained(bare).save_pretrained(source)
    assert (source / "tokenizer.json").is_file()

    do_import(source, tmp_path / "out")
    vocabulary = Vocabulary.from_folder(tmp_path / "out")
    assert (vocabulary.family, vocabulary.size) == ("pegasus", 503)
    text = "The value of an expression is an object."
    ids = SentencePieceProcessor(model_file=str(tmp_path / "out" / "spiece.model")).EncodeAsIds(
        text
    )
    assert main(["verify", str(tmp_path / "out")]) == 0
    for folder in (source, tmp_path / "out"):
        assert transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == [*ids, 1]


@pytest.mark.launch
def test_a_bf16_run_starts_from_it_without_rounding_what_is_kept_in_fp32(
    pegasus_corpus: Corpus, tmp_path: Path
) -> None:
    shape = {key: value for key, value in TINY_PEGASUS_RUN.items() if key != "model_type"}
    source = save_pegasus_twin(tmp_path / "source", GENERATION, vocab_size=500, **shape)
    for path in pegasus_corpus.tokenizer.iterdir():
        shutil.copyfile(path, source / path.name)
    report = do_import(source, tmp_path / "out")
    assert set(report["tokenizer"]) == {path.name for path in pegasus_corpus.tokenizer.iterdir()}
    bias = stored(source)["final_logits_bias"]
    assert not torch.equal(bias, bias.bfloat16().float())

    settings = pegasus_run_settings(pegasus_corpus, tmp_path / "run")
    settings |= {"model": str(tmp_path / "out"), "train": {"steps": 1, "log_every": 1}}
    settings |= {"optimizer": {"lr": 1e-9}, "schedule": {}}
    path = tmp_path / "run.yaml"
    runs = []
    for name, changes in {
        "fp32": {},
        "bf16-1": {"deepspeed.bf16.enabled": True},
        "bf16-0": {"deepspeed.bf16.enabled": True, "deepspeed.zero_optimization.stage": 0},
        "bf16-3": {"deepspeed.bf16.enabled": True, "deepspeed.zero_optimization.stage": 3},
    }.items():
        path.write_text(json.dumps(changed(settings, output=str(tmp_path / name), **changes)))
        config = load_run_config(path)
        assert config.initial_weights == str(tmp_path / "out")
        runs.append(config.model_dump(mode="json"))
    lines = run_distributed(train_all, 1, runs)[0]
    before = stored(tmp_path / "out")
    for run, found in zip(runs, lines, strict=True):
        assert losses(found) == pytest.approx(losses(lines[0]), rel=4e-3)
        after = stored(Path(run["output"]) / "checkpoints" / "step-1")
        assert torch.equal(after["final_logits_bias"], bias)
        for name, tensor in after.items():
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-7)
