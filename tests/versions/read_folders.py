"""Run by ``check_exports.py`` under one release of transformers: load folders, compare logits.

Imports nothing from bigbird_ds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

MORE_TOKENS = 8


def main() -> int:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    faults = 0
    for case in map(Path, sys.argv[1:]):
        folder = Path(json.loads((case / "folder.json").read_text()))
        try:
            found = [*check_loading(folder), *check_logits(folder, case), *check_larger(folder)]
        except Exception as cause:  # of any kind: a user of this release would see it
            found = [f"{type(cause).__name__}: {str(cause).splitlines()[0]}"]
        print(f"  {folder.name}: {'; '.join(found) or 'the same'}", flush=True)
        faults += len(found)
    return bool(faults)


def class_of(folder: Path) -> Any:
    config = json.loads((folder / "config.json").read_text())
    return getattr(transformers, config["architectures"][0])


def check_loading(folder: Path) -> list[str]:
    """Nothing missing, unexpected or of the wrong shape; tied if the config says so."""
    model, info = class_of(folder).from_pretrained(folder, output_loading_info=True)
    faults = [f"{kind}: {sorted(keys)[:4]}" for kind, keys in info.items() if keys]
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if tied != model.config.tie_word_embeddings:
        faults.append(f"tied: {tied}, by the config: {model.config.tie_word_embeddings}")
    return faults


@torch.no_grad()
def check_logits(folder: Path, case: Path) -> list[str]:
    expected = load_file(case / "expected.safetensors")
    faults = []
    lengths = {int(name.split(".")[0]) for name in expected}
    # a model of each: after a short input transformers stays in full attention
    for length in sorted(lengths):
        # its name since 4.56; torch_dtype before
        model = class_of(folder).from_pretrained(folder, dtype=torch.float32).eval()
        field = next(n for n in expected if n.startswith(f"{length}.") and n.endswith("logits"))
        output = model(
            input_ids=expected[f"{length}.ids"], attention_mask=expected[f"{length}.mask"]
        )[field.split(".")[1]]
        gap = float((output - expected[field]).abs().max())
        if not gap <= 1e-4 * max(1.0, float(expected[field].abs().max())):
            faults.append(f"logits of {length} tokens differ by {gap:.1e}")
    return faults


@torch.no_grad()
def check_larger(folder: Path) -> list[str]:
    """A vocabulary of another size re-initializes the tensors over tokens, and the model runs."""
    config = transformers.AutoConfig.from_pretrained(folder)
    size = config.vocab_size + MORE_TOKENS
    model = class_of(folder).from_pretrained(folder, vocab_size=size, ignore_mismatched_sizes=True)
    output = model.eval()(input_ids=torch.randint(0, size, (1, 2 * config.block_size)))
    logits = output["prediction_logits" if "prediction_logits" in output else "logits"]
    return [] if logits.shape[-1] == size else [f"{logits.shape[-1]} logits for {size} tokens"]


if __name__ == "__main__":
    sys.exit(main())
