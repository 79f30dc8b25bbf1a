"""User errors of a run are found before the first step, have four parts, and lose nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.corpus import Corpus, command
from support.distributed import run_distributed
from support.runs import changed, errors_of, train_one

from bigbird_ds.errors import ConfigError, UserError
from bigbird_ds.training.config.file import check_run_config, load_run_config
from bigbird_ds.training.planning.plan import describe_plan


def _damaged_copy(shards: Path, target: Path, damage: str) -> Path:
    shutil.copytree(shards, target)
    tar = next(iter(sorted(target.glob("train-*.tar"))))
    content = bytearray(tar.read_bytes())
    if damage == "truncated":
        content = content[:-1000]
    else:
        content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    return target


@pytest.mark.launch
def test_every_user_error_says_what_was_seen_needed_and_to_change(
    run_settings: dict[str, Any], corpus: Corpus, tmp_path: Path
) -> None:
    other_tokenizer = tmp_path / "other"
    command(["tokenizer", corpus.documents, "--out", other_tokenizer, "--vocab-size", "400"])
    cut = _damaged_copy(corpus.shards, tmp_path / "cut", "truncated")
    flipped = _damaged_copy(corpus.shards, tmp_path / "flipped", "flipped")
    trained = changed(run_settings, **{"output": str(tmp_path / "trained"), "train.save_every": 2})
    run_distributed(train_one, 1, trained)

    cases: dict[str, tuple[dict[str, Any], list[str]]] = {
        "sequence length": (
            {"data.sequence_length": 120},
            ["is not a multiple of the block size", "data.sequence_length=120", "multiple of 16"],
        ),
        "too long": ({"data.sequence_length": 512}, ["longer than the model", "at most 256"]),
        "batch": (
            {"batch.sequences": 5},
            ["the global batch does not divide", "multiple of micro"],
        ),
        "model key": ({"model.hiden_size": 8}, ["unknown key in a model config", "hidden_size"]),
        "small vocabulary": ({"model.vocab_size": 100}, ["fewer embeddings", "at least 500"]),
        "tokenizer": (
            {"data.tokenizer": str(other_tokenizer)},
            ["differs from the one that wrote the shards", "data.tokenizer"],
        ),
        "shards as tokenizer": (
            {"data.tokenizer": str(corpus.shards)},
            [
                "data.tokenizer is a shards folder",
                "the tokenizer folder that the shards were written with",
            ],
        ),
        "no tokenizer": ({"data.tokenizer": str(tmp_path)}, ["holds no tokenizer"]),
        "no shards": ({"data.train": str(tmp_path / "nothing")}, ["holds no shards", "data.train"]),
        "cut shard": ({"data.train": str(cut)}, ["train-", "truncated"]),
        "deepspeed key": (
            {"deepspeed.zero_optimisation": {}},
            ["unknown key in the DeepSpeed config", "zero_optimization"],
        ),
        "deepspeed batch": (
            {"deepspeed.train_batch_size": 8},
            ["the run config sets", "batch.sequences"],
        ),
        "fp16": ({"deepspeed.fp16": {"enabled": True}}, ["fp16 is not supported", "bf16"]),
        "flipped byte": ({"data.train": str(flipped)}, ["train-", "damaged"]),
        "another model": (
            {"model.hidden_size": 64, "resume": str(tmp_path / "trained")},
            ["of a different model", "hidden_size=32", "hidden_size=64"],
        ),
        "another seed": (
            {"train.seed": 8, "resume": str(tmp_path / "trained")},
            ["a different seed", "train.seed=7"],
        ),
        "another objective": (
            {"objective.mask_fraction": 0.4, "resume": str(tmp_path / "trained")},
            ["objective.mask_fraction=0.4\n", "objective.mask_fraction=0.15, as in"],
        ),
        "beyond the last step": (
            {"train.steps": 3, "resume": str(tmp_path / "trained")},
            ["train.steps=3, step 4 in", "train.steps=4 or more"],
        ),
        "back inside a run": (
            {"resume": str(tmp_path / "trained/checkpoints/step-2"), "output": trained["output"]},
            ["holds later checkpoints", "(step 2), and step-4 in", "resume=auto"],
        ),
        "would overwrite": (
            {"resume": "never", "output": str(tmp_path / "trained")},
            ["would overwrite checkpoints", "resume=auto"],
        ),
        "output": ({"output": str(corpus.documents)}, ["cannot be written", "not a folder"]),
        "no checkpoint": ({"resume": str(tmp_path / "nowhere")}, ["is missing", "nowhere"]),
    }
    fresh = {"output": str(tmp_path / "never")}
    runs = [changed(run_settings, **fresh | changes) for changes, _ in cases.values()]
    found = run_distributed(errors_of, 1, runs)[0]
    for (name, (_, texts)), error in zip(cases.items(), found, strict=True):
        assert error is not None, f"{name}: no error"
        for text in [*texts, "seen:", "needed:", "change:"]:
            assert text in error, f"{name}: {text!r} is not in\n{error}"
    assert not (tmp_path / "never").exists()

    # A plan gives the same messages, except for damage and checkpoints, which only a run reads.
    for name, settings, error in zip(cases, runs, found, strict=True):
        if name == "flipped byte":
            break
        if name == "no shards":  # a plan may come before the shards
            continue
        with pytest.raises(UserError) as caught:
            describe_plan(check_run_config(settings, "test"))
        assert str(caught.value) == error, name


@pytest.mark.parametrize(
    ("override", "texts"),
    [
        ("batch.sequence=8", ["unknown key", "batch.sequences (closest match)"]),
        ("trian.steps=8", ["unknown key", "train"]),
        ("train.steps=many", ["invalid value", "train.steps", "optimizer steps"]),
        ("train.steps=0", ["invalid value", "greater than 0"]),
        ("train.skip_steps=[9, 8]", ["are no range", "skip_steps=[9, 8]", "[1200, 1210]"]),
        ("train.steps=yes", ["invalid value", "train.steps=true", "not true or false"]),
        ("optimizer.betas=[0.9, on]", ["invalid value", "optimizer.betas", "not true or false"]),
        ("train.seed=18446744073709551616", ["invalid value", "less than 9223372036854775808"]),
        ("train.steps", ["invalid override"]),
        ("optimizer.lr=.inf", ["invalid value", "optimizer.lr=Infinity", "finite"]),
        ("optimizer.weight_decay=.nan", ["invalid value", "weight_decay=NaN", "finite"]),
        ("optimizer.betas=[0.9, 2]", ["optimizer.betas", "decay rates", "less than 1"]),
        ("optimizer.betas=[-0.1, 0.9]", ["optimizer.betas", "greater than or equal to 0"]),
        ("optimizer.eps=0", ["optimizer.eps=0", "greater than 0"]),
        ("objective.name=mlm_nps", ["invalid value", "mlm_nsp"]),
        ("train.eval_every=5", ["needs validation data", "data.validation"]),
        ("train.eval_windows=5", ["needs validation data", "train.eval_windows=5"]),
        ("schedule.warmup_steps=9", ["warm-up is longer", "at most 4"]),
        ("schedule.total_steps=2", ["ends before the run", "at least train.steps=4"]),
        ("model=no/such.json", ["no file no/such.json"]),
        (
            "model=/no/such",
            ["no file /no/such", "needed: a folder in Hub format, or a JSON file", "change: model"],
        ),
        ("deepspeed=/", ["no file /", "needed: a JSON file", "change: deepspeed"]),
        ("model=google/bigbird", ["no folder google/bigbird", "model: DIR, after `hf download"]),
        ("output.x=1", ["of a value that is not a mapping"]),
        ("output=~/runs/one", ["no home folder here", "output=~/runs/one"]),
        ("output=runs/a #1", ["is a comment", "'#1' would have no effect"]),
    ],
)
def test_a_wrong_override_is_refused(
    run_config_file: Path, override: str, texts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run_config(run_config_file, [override])
    for text in texts:
        assert text in str(caught.value)


def test_a_missing_key_and_invalid_yaml_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model: {}\ntrain: {steps: 1}\noutput: x\n")
    with pytest.raises(ConfigError, match="no data in"):
        load_run_config(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_run_config(path)
    with pytest.raises(ConfigError, match="is missing"):
        load_run_config(tmp_path / "none.yaml")
