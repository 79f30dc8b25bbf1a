"""The model card (README.md) of an export, written from the run's own records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bigbird_ds import files
from bigbird_ds.hub.base_model import base_model
from bigbird_ds.hub.checkpoints import TrainingState
from bigbird_ds.hub.limits import limit_in_transformers, other_pattern
from bigbird_ds.hub.run_metrics import read_metrics
from bigbird_ds.vocabulary import SPIECE_NAME, Vocabulary
from bigbird_ds.white_space import NEWLINE_PIECE, PIECE, SPACE, Newline

# Not "summarization" for BigBirdPegasus: pretraining only fills gaps.
_PIPELINES = {"BigBirdForPreTraining": "fill-mask", "BigBirdForMaskedLM": "fill-mask"}
_FILL_MASK = """from transformers import pipeline

fill = pipeline("fill-mask", model=".")  # this folder, or the name of this repository
print(fill(f"A long document has many {fill.tokenizer.mask_token}."))"""
_GENERATE = """from transformers import AutoTokenizer, {name}

tokenizer = AutoTokenizer.from_pretrained(".")  # this folder, or the name of this repository
model = {name}.from_pretrained(".")
inputs = tokenizer("The first sentence. <mask_1> The third sentence.", return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=32)))"""


@dataclass(frozen=True)
class RunRecords:
    """The records of a run that the model card reports.

    Attributes:
        state: step, tokens and run config of the exported checkpoint.
        train: the last training line of ``metrics.jsonl`` up to that step, or empty.
        evaluation: the last evaluation line up to that step, or empty.
    """

    state: TrainingState
    train: dict[str, Any]
    evaluation: dict[str, Any]

    @classmethod
    def read(cls, state: TrainingState, run: Path) -> RunRecords:
        train: dict[str, Any] = {}
        evaluation: dict[str, Any] = {}
        for line in read_metrics(run):
            if line["step"] <= state.step:
                if "eval_loss" in line:
                    evaluation = line
                else:
                    train = line
        return cls(state, train, evaluation)


def write_model_card(
    path: Path, model: Any, records: RunRecords, dtype: str, transformers_version: str | None
) -> None:
    """Write README.md with the front matter that the Hub reads."""
    name = type(model).__name__
    start = records.state.run_config.get("initial_weights")
    base = base_model(start) if start else None
    header = {
        "library_name": "transformers",
        **({"base_model": base} if base else {}),
        **({"pipeline_tag": _PIPELINES[name]} if name in _PIPELINES else {}),
        "tags": [model.config.model_type, "long-context", "bigbird_ds"],
    }
    sections = [
        "---\n" + yaml.safe_dump(header, sort_keys=False) + "---",
        f"# {name}, pretrained with bigbird_ds",
        _usage(name, base, _newline(path.parent)),
        _training(records),
        _results(records),
        _model(model, dtype, transformers_version),
    ]
    with files.atomic_write(path) as stream:
        stream.write(("\n\n".join(sections) + "\n").encode())


_WHITE_SPACE: dict[Newline, str] = {
    SPACE: "all white space into spaces, as in training. `spiece.model` on its own does not: with"
    " the original BigBird vocabulary each of them becomes an unknown token.",
    PIECE: f"each line break into the piece `{NEWLINE_PIECE}`, and other white space into spaces,"
    " as in training. `spiece.model` on its own turns a line break into a space.",
}


def _newline(folder: Path) -> Newline:
    """What the tokenizer of an exported folder makes of a line end."""
    has_model = (folder / SPIECE_NAME).is_file()
    return Vocabulary.from_folder(folder).newline if has_model else SPACE


def _usage(name: str, base: str | None, newline: Newline) -> str:
    check = ""
    if base and "/" not in base:
        check = (
            f" `base_model` is the name of a folder, `{base}`: replace it by the name on the Hub."
        )
    code = _FILL_MASK if name in _PIPELINES else _GENERATE.format(name=name)
    return (
        f"```python\n{code}\n```\n\n"
        "Before you publish this model, add `license`, `language` and `datasets` to the header"
        f" above: the run does not know them.{check}\n\n"
        "Texts may contain line breaks and tabs: `tokenizer.json` turns "
        f"{_WHITE_SPACE[newline]}"
    )


def _training(records: RunRecords) -> str:
    config = records.state.run_config
    rows = {
        "objective": config["objective"]["name"],
        "optimizer steps": f"{records.state.step:,} of {config['train']['steps']:,}",
        "tokens seen": f"{records.state.tokens:,}",
        "sequence length": f"{config['data']['sequence_length']:,}",
        "sequences per step": f"{config['batch']['sequences']:,}",
        "peak learning rate": f"{config['optimizer']['lr']:g}",
        "seed": str(config["train"]["seed"]),
    }
    if start := config.get("initial_weights"):
        rows["initial weights"] = f"`{Path(start).name}`"
    data = records.state.data
    if fingerprint := data.get("fingerprint"):
        rows["training data (sha256)"] = f"`{fingerprint[:16]}`"
    for number, place in enumerate(data.get("corpora", []), start=1):
        rows[f"training data {number} (sha256)"] = (
            f"`{place['fingerprint'][:16]}`, {place['tokens']:,} tokens"
        )
    return "## Training\n\n" + _table(rows)


def _results(records: RunRecords) -> str:
    rows = {}
    for line in (records.train, records.evaluation):
        for name, value in line.items():
            if name.startswith("eval_") or name.endswith(("loss", "accuracy", "token")):
                rows[f"{name} (step {line['step']})"] = f"{value:.4f}"
    return "## Results\n\n" + (_table(rows) if rows else "The run logged no losses.")


def _model(model: Any, dtype: str, transformers_version: str | None) -> str:
    config = model.config
    checked = (
        f"transformers {transformers_version} loaded this folder and computed the same logits."
        if transformers_version
        else "transformers was not installed, so the export was not compared with it."
    )
    rows = {
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "layers x hidden x heads": f"{config.num_hidden_layers} x {config.hidden_size} x "
        f"{config.num_attention_heads}",
        "vocabulary": f"{config.vocab_size:,}",
        "positions": f"{config.max_position_embeddings:,}",
        "attention": f"{config.attention_type}, block {config.block_size}, "
        f"{config.num_random_blocks} random blocks, style {config.random_style}",
        "dtype": dtype,
    }
    if limit := limit_in_transformers(config):
        checked += f"\n\n**Limit:** {limit}."
    if note := other_pattern(config):
        checked += f"\n\n**Pattern:** {note}."
    return "## Model\n\n" + _table(rows) + "\n\n" + checked


def _table(rows: dict[str, str]) -> str:
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )
