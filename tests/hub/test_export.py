"""transformers loads an export: same weights, logits and tokenizer; the model card is correct."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commands import contents, run_command, user_error
from support.corpus import Corpus, bigbird_run_settings
from support.distributed import run_distributed
from support.hub_server import hub_server
from support.model_cards import code_of_card
from support.runs import changed, train_one

from bigbird_ds import BigBirdForPreTraining
from bigbird_ds.cli.main import main
from bigbird_ds.errors import CheckpointError, ConfigError
from bigbird_ds.file_records import FileRecord
from bigbird_ds.hub.export import export


@pytest.fixture(scope="module")
def trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose checkpoint was written by two ranks."""
    output = tmp_path_factory.mktemp("trained") / "run"
    settings = changed(
        bigbird_run_settings(corpus, output),
        **{"data.validation": str(corpus.shards), "train.steps": 2},
    )
    run_distributed(train_one, 2, settings)
    return output


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    target = trained.parent / "export"
    export(trained, target)
    return target


@pytest.mark.launch
def test_transformers_loads_the_export_without_a_warning_and_computes_the_same_logits(
    exported: Path, transformers_log: pytest.LogCaptureFixture
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers judges the export")
    theirs = transformers.AutoModelForPreTraining.from_pretrained(exported)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    warnings = [r for r in transformers_log.records if r.levelno >= logging.WARNING]
    assert warnings == []
    assert type(theirs).__name__ == "BigBirdForPreTraining"
    ours = BigBirdForPreTraining.from_pretrained(exported)
    text = "The raise statement re-raises the exception. " * 20
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=True)
    assert inputs["input_ids"].shape[1] > 112  # block-sparse
    inputs = {name: value[:, :200] for name, value in inputs.items()}
    with torch.no_grad():
        expected, found = theirs(**inputs), ours(**inputs)
    for name in ("prediction_logits", "seq_relationship_logits"):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5)


@pytest.mark.launch
def test_truncation_cuts_a_text_to_the_models_positions(exported: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers judges the export")
    fill_mask = transformers.pipeline("fill-mask", str(exported))
    assert fill_mask.tokenizer.model_max_length == 256
    text = "The [MASK] statement re-raises the exception. " + "It does. " * 500
    assert fill_mask.tokenizer(text, truncation=True)["input_ids"][255:] == [66]  # [SEP]
    assert len(fill_mask(text, tokenizer_kwargs={"truncation": True})) == 5


@pytest.mark.launch
def test_a_new_head_of_any_size_is_reported_as_new_without_a_word_on_labels(
    exported: Path, transformers_log: pytest.LogCaptureFixture
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers judges the export")
    transformers.AutoModelForSequenceClassification.from_pretrained(exported, num_labels=5)
    logged = transformers_log.text
    assert "classifier.out_proj.weight" in logged  # so other messages would be there too
    assert "id2label" not in logged


@pytest.mark.launch
def test_the_exported_weights_are_the_checkpoints_and_the_config_says_dtype_and_class(
    trained: Path, exported: Path
) -> None:
    checkpoint = trained / "checkpoints" / "step-2"
    assert len(list(checkpoint.glob("model-*.safetensors"))) == 2
    before = BigBirdForPreTraining.from_pretrained(checkpoint).state_dict()
    after = BigBirdForPreTraining.from_pretrained(exported).state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["BigBirdForPreTraining"]
    assert config["dtype"] == "float32"
    assert (config["bos_token_id"], config["eos_token_id"], config["sep_token_id"]) == (2, 1, 66)
    names = {path.name for path in exported.iterdir()}
    assert {"README.md", "model.safetensors", "tokenizer.json", "spiece.model"} <= names


@pytest.mark.launch
def test_the_model_card_tells_the_runs_own_numbers(trained: Path, exported: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"| loss (step 2) | {lines[1]['loss']:.4f} |" in card
    assert f"| eval_mlm_accuracy (step 2) | {lines[2]['eval_mlm_accuracy']:.4f} |" in card
    assert "computed the same logits" in card
    assert f"| tokens seen | {lines[1]['tokens']:,} |" in card


@pytest.mark.launch
def test_the_code_of_the_model_card_runs_in_its_folder(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(exported)
    exec(code_of_card(exported), {})
    assert "'token_str'" in capsys.readouterr().out


@pytest.mark.launch
def test_a_line_of_metrics_that_a_crash_cut_keeps_no_report_from_the_run(
    trained: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "los')
    assert main(["inspect", str(run)]) == 0
    assert "last logged: step 2, loss" in capsys.readouterr().out
    assert main(["plot", str(run)]) == 0
    assert main(["export", str(run), str(tmp_path / "export")]) == 0
    assert (tmp_path / "export" / "README.md").read_bytes() == (exported / "README.md").read_bytes()

    capsys.readouterr()
    damaged = run / "checkpoints" / "step-9"
    for name, content, reason in (
        ("manifest.json", "{", "the checkpoint's manifest is not valid JSON"),
        ("state.json", "{", "a checkpoint's file is truncated"),
        ("config.json", None, "a checkpoint's file is missing"),
    ):
        shutil.copytree(run / "checkpoints" / "step-2", damaged)
        (damaged / name).unlink()
        if content is not None:
            (damaged / name).write_text(content)
        assert main(["inspect", str(run)]) == 0
        described = capsys.readouterr().out
        assert f"step-9 is damaged ({reason})" in described
        assert "checkpoint of step 2 of 2" in described
        shutil.rmtree(damaged)


@pytest.mark.launch
def test_another_model_in_the_tokenizers_folder_does_not_get_into_the_export(
    trained: Path, exported: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    for name in ("config.json", "model.safetensors", "README.md"):
        (run / "tokenizer" / name).write_text("of the folder that data.tokenizer named")
    export(run, tmp_path / "export")
    assert contents(tmp_path / "export") == contents(exported)


@pytest.mark.launch
def test_a_bfloat16_export_declares_its_dtype_and_loads_in_it(
    trained: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers judges the export")
    assert main(["export", str(trained), str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    # "auto" is the default of transformers 5
    model = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "half", dtype="auto")
    assert model.dtype == torch.bfloat16


@pytest.mark.launch
def test_a_sharded_export_loads_and_is_verified_to_the_last_file(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers judges the export")
    out = tmp_path / "sharded"
    assert main(["export", str(trained), str(out), "--max-shard-size", "50K"]) == 0
    shards = sorted(out.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    assert not (out / "model.safetensors").exists()
    assert main(["verify", str(out), "--deep"]) == 0
    theirs = transformers.AutoModelForPreTraining.from_pretrained(out).state_dict()
    for name, tensor in BigBirdForPreTraining.from_pretrained(out).state_dict().items():
        assert torch.equal(tensor, theirs[name]), name

    def broken(text: str) -> None:
        assert main(["verify", str(out)]) == 2
        assert text in capsys.readouterr().err

    (out / "model-00009-of-00009.safetensors").write_bytes(shards[0].read_bytes())
    broken("not in the index")
    (out / "model-00009-of-00009.safetensors").unlink()
    index = out / "model.safetensors.index.json"
    text = index.read_text()
    index.write_text(text.replace('"total_size": ', '"total_size": 1'))
    broken("the index gives the wrong total size")
    index.write_text(text)
    shards[1].write_bytes(shards[1].read_bytes()[:-8])
    broken("cannot be read")


@pytest.mark.launch
def test_verify_tells_of_every_checkpoint_of_a_run_and_names_the_newest_intact_one(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(trained, tmp_path / "run")
    for name in ("step-1", "step-3"):
        shutil.copytree(checkpoints / "step-2", checkpoints / name)
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("intact") == 3
    for name, left in (("step-3", "step-2"), ("step-1", "step-2"), ("step-2", None)):
        (checkpoints / name / "config.json").write_text("{}")
        assert main(["verify", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert f"{checkpoints / name}: a checkpoint's file is truncated" in error
        if left is not None:
            assert f"{checkpoints / left}: intact" in error
            assert f"resume from {checkpoints / left}, the newest intact one" in error
    assert "error: 3 of 3 checkpoints are damaged" in error


@pytest.mark.launch
def test_verify_finds_inconsistent_files_of_an_export(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str, change: Callable[[str], str], text: str) -> None:
        folder = tmp_path / name
        shutil.copytree(exported, folder)
        path = folder / name
        path.write_text(change(path.read_text()))
        assert main(["verify", str(folder)]) == 2
        assert text in capsys.readouterr().err

    broken(
        "config.json",
        lambda text: text.replace("float32", "float16"),
        "dtype of the weights differs",
    )
    broken("README.md", lambda text: text.removeprefix("---\n"), "lacks a header for the Hub")
    broken("tokenizer.json", keep_spaces_at_the_end, "'  leading and trailing spaces  '")


def keep_spaces_at_the_end(text: str) -> str:
    """The tokenizer as transformers would have built it from spiece.model: it strips no spaces."""
    tokenizer = json.loads(text)
    steps = tokenizer["normalizer"]["normalizers"]
    kept = [step for step in steps if not step["pattern"]["Regex"].endswith("]+\\z")]
    assert len(kept) == len(steps) - 1
    tokenizer["normalizer"]["normalizers"] = kept
    return json.dumps(tokenizer)


@pytest.mark.launch
def test_an_export_is_uploaded_and_the_token_is_never_printed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "hf_averysecrettokenthatnobodymaysee"
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with hub_server(token) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        words = ["export", trained, tmp_path / "out", "--push", "someone/model"]
        done = run_command(*words)
        assert done.returncode == 0, done.stderr.decode()
        assert f"uploaded: {server.address}/someone/model/commit/" in done.stdout.decode()
        assert server.files == contents(tmp_path / "out")

        server.token = "hf_another"
        message = user_error("export", trained, tmp_path / "none", "--push", "someone/model")
        assert "the upload to the Hub failed" in message
        for text in (done.stdout.decode(), done.stderr.decode(), message):
            assert token not in text
        assert not (tmp_path / "none").exists()  # detected before the work


@pytest.mark.launch
def test_nothing_is_written_where_an_export_cannot_be_right(trained: Path, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="output folder is not empty"):
        export(trained, occupied)
    assert [path.name for path in occupied.iterdir()] == ["mine.txt"]

    for target in (occupied / "mine.txt" / "below", Path("/proc/run")):
        with pytest.raises(ConfigError, match="cannot be written"):
            export(tmp_path, target)  # before the source is read

    with pytest.raises(CheckpointError, match="no checkpoint found"):
        export(tmp_path, tmp_path / "none")

    damaged = tmp_path / "damaged"
    checkpoint = trained / "checkpoints" / "step-2"
    target = damaged / "checkpoints" / "step-2"
    target.mkdir(parents=True)
    for path in checkpoint.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    (target / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="truncated"):
        export(damaged, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.launch
def test_weights_that_are_not_finite_are_the_reported_cause(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    checkpoint = run / "checkpoints" / "step-2"
    path = checkpoint / "model-00001-of-00002.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = torch.inf
    save_file(tensors, path, metadata={"format": "pt"})
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    records = [r for r in manifest["files"] if r["name"] != path.name]
    manifest["files"] = [*records, FileRecord.of(path).model_dump()]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(CheckpointError, match="not finite") as caught:
        export(run, tmp_path / "export")
    assert name in str(caught.value.seen)
    assert not (tmp_path / "export").exists()
    assert "not finite" in user_error("verify", run, "--deep")
