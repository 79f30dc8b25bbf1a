"""Check that the oldest and newest supported releases of transformers load our exports.

    python tests/versions/check_exports.py [--versions 4.57.6 5.24.0] [EXPORT_FOLDER...]

Creates a temporary virtual environment for each release, which shares torch and the other packages
of this one. In each, ``read_folders.py`` loads models of ours (BigBird and BigBirdPegasus, tied and
untied, in bf16, sharded; and the given folders) and compares logits with ours. Exit code 1 if a
release reads something else. Takes minutes and needs pip; ``make test-export-versions``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bigbird_ds import BigBirdConfig, BigBirdPegasusConfig
from bigbird_ds.hub.auto import MODEL_CLASSES, load_pretrained

# The oldest supported release; two that tie by the stored tensors, differently; the newest.
VERSIONS = ["4.57.6", "5.0.0", "5.3.0", "5.24.0"]
READER = Path(__file__).with_name("read_folders.py")

_BLOCKS = {"vocab_size": 120, "block_size": 16, "num_random_blocks": 1}
_BIGBIRD = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "sep_token_id": 3,
    "initializer_range": 0.15,  # attention is far from uniform, so that errors show
}
_PEGASUS = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 256,
    "init_std": 0.15,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="exports to read as well")
    parser.add_argument("--versions", nargs="+", default=VERSIONS)
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [*write_models(Path(scratch)), *options.folders]
        cases = [
            write_expected(folder, Path(scratch) / f"{k}.case") for k, folder in enumerate(folders)
        ]
        for version in options.versions:
            python = make_environment(Path(scratch) / version, version)
            print(f"transformers {version}", flush=True)
            # in a separate process, without warnings of other libraries
            done = subprocess.run(
                [python, READER, *cases], env={**os.environ, "PYTHONWARNINGS": "ignore"}
            )
            if done.returncode:
                failed.append(version)
    print(
        f"failed: transformers {', '.join(failed)}" if failed else "all releases read all folders"
    )
    return bool(failed)


def write_models(scratch: Path) -> list[Path]:
    """Folders that ``save_pretrained`` writes, of both families."""
    kinds: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "pretraining": ("BigBirdForPreTraining", {}, {}),
        "masked": ("BigBirdForMaskedLM", {}, {"max_shard_size": "50KB"}),
        "masked-untied": ("BigBirdForMaskedLM", {"tie_word_embeddings": False}, {}),
        "pegasus": ("BigBirdPegasusForConditionalGeneration", {}, {}),
        "pegasus-shards": (
            "BigBirdPegasusForConditionalGeneration",
            {},
            {"max_shard_size": "50KB"},
        ),
        "pegasus-bf16": ("BigBirdPegasusForConditionalGeneration", {}, {"dtype": "bfloat16"}),
        "pegasus-untied": (
            "BigBirdPegasusForConditionalGeneration",
            {"tie_word_embeddings": False},
            {},
        ),
    }
    torch.manual_seed(0)
    written = []
    for name, (class_name, settings, how) in kinds.items():
        config: Any = (
            BigBirdPegasusConfig(**{**_BLOCKS, **_PEGASUS, **settings})
            if "Pegasus" in class_name
            else BigBirdConfig(**{**_BLOCKS, **_BIGBIRD, **settings})
        )
        model = MODEL_CLASSES[class_name](config)
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                tensor.add_(0.05 * torch.randn_like(tensor))
        model.save_pretrained(scratch / name, **how)
        written.append(scratch / name)
    return written


@torch.no_grad()
def write_expected(folder: Path, case: Path) -> Path:
    """Inputs, a long and a short one, and the logits that our class computes in fp32."""
    case.mkdir()
    model = load_pretrained(folder, dtype=torch.float32)
    config = model.config
    sparse = config.max_full_attention_tokens + config.block_size
    tensors = {}
    for length in (min(sparse, config.max_position_embeddings), 2 * config.block_size):
        ids = torch.randint(0, config.vocab_size, (2, length))
        mask = torch.ones_like(ids)
        mask[1, length - 9 :] = 0
        output = model(input_ids=ids, attention_mask=mask)
        field = "prediction_logits" if "prediction_logits" in output else "logits"
        tensors |= {f"{length}.ids": ids, f"{length}.mask": mask}
        tensors |= {f"{length}.{field}": output[field].contiguous()}
    save_file(tensors, case / "expected.safetensors")
    (case / "folder.json").write_text(json.dumps(str(folder.resolve())))
    return case


def make_environment(folder: Path, version: str) -> Path:
    """A virtual environment with this transformers, and everything else from ours; its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    purelib = f"lib/python{sysconfig.get_python_version()}/site-packages"
    (folder / purelib / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [python, "-m", "pip", "install", "--quiet", f"transformers=={version}"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return python


if __name__ == "__main__":
    sys.exit(main())
