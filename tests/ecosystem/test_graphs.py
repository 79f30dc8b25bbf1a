"""torch.export and torch.compile of whole models, block-sparse, at new lengths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.every_class import CLASSES, LONG, tiny_batch, tiny_model, twin_of

from bigbird_ds.integrations.transformers import use_block_sparse_attention

STRICT = ("BigBirdForMaskedLM", "BigBirdPegasusForConditionalGeneration")
_RUN_ELSEWHERE = """
import sys, torch
import bigbird_ds.attention.graph, bigbird_ds.models.cache, bigbird_ds.models.bigbird.masked_lm
program, inputs = torch.export.load(sys.argv[1]), torch.load(sys.argv[2], weights_only=True)
torch.save(program.module()(**inputs).logits, sys.argv[3])
"""


def inputs_of(name: str, seed: int = 0, **options: Any) -> dict[str, Any]:
    batch = tiny_batch(name, seed=seed, **options)
    return {key: batch[key] for key in ("input_ids", "attention_mask")}


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected) and list(found) == list(expected)
    torch.testing.assert_close(found.to_tuple()[0], expected.to_tuple()[0])


@pytest.mark.parametrize(
    "name,strict", [(name, False) for name in CLASSES] + [(name, True) for name in STRICT]
)
def test_a_model_is_exported(name: str, strict: bool) -> None:
    model = tiny_model(name).eval()
    program = torch.export.export(model, (), inputs_of(name), strict=strict)
    inputs = inputs_of(name, seed=1)
    assert_same(program.module()(**inputs), model(**inputs))


def test_an_exported_model_runs_in_another_process(tmp_path: Path) -> None:
    model, inputs = tiny_model("BigBirdForMaskedLM").eval(), inputs_of("BigBirdForMaskedLM")
    torch.export.save(torch.export.export(model, (), inputs), tmp_path / "model.pt2")
    torch.save(inputs, tmp_path / "inputs")
    files = [str(tmp_path / name) for name in ("model.pt2", "inputs", "logits")]
    subprocess.run([sys.executable, "-c", _RUN_ELSEWHERE, *files], check=True)
    found = torch.load(tmp_path / "logits", weights_only=True)
    torch.testing.assert_close(found, model(**inputs).logits)


@pytest.mark.parametrize("name", STRICT)
def test_a_model_is_one_graph_for_new_lengths(name: str) -> None:
    model = tiny_model(name, max_position_embeddings=512).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for seq_len in (LONG, 250, 331):
        inputs = inputs_of(name, seq_len=seq_len)
        assert_same(compiled(**inputs), model(**inputs))


def test_a_graph_computes_the_weights_of_attention() -> None:
    model = tiny_model("BigBirdModel").eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    inputs = {**inputs_of("BigBirdModel"), "output_attentions": True}
    found, expected = compiled(**inputs), model(**inputs)
    torch.testing.assert_close(found.attentions, expected.attentions)


def test_an_accelerated_model_is_compiled() -> None:
    model = use_block_sparse_attention(twin_of(tiny_model("BigBirdForMaskedLM"))).train()
    compiled = torch.compile(model, backend="eager")
    for seq_len in (LONG, 128):
        inputs = inputs_of("BigBirdForMaskedLM", seq_len=seq_len)
        assert_same(compiled(**inputs), model(**inputs))
