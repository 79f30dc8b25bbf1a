"""Report what `make demo` learned, on held-out documents: the same model before and after training.

Prints masked words with the guesses of both, computed by transformers from the export, and the
accuracy of both against that of always predicting the most frequent token.

python -m launch.demo_report DEMO_FOLDER
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbird_ds.data.format import TRAIN
from bigbird_ds.data.shards import Shards
from bigbird_ds.hub.checkpoints import RUN_CONFIG_NAME
from bigbird_ds.training.config.file import load_run_config
from launch.demo_models import before_and_after, held_out_windows, metrics

NUM_SHOWN = 10  # masked words
WORDS_AROUND = 5  # of the context, on each side; the model reads the whole window
IGNORED = -100
WORD_START = "▁"  # of sentencepiece

Windows = list[dict[str, torch.Tensor]]


@torch.no_grad()
def guesses(model: Any, windows: Windows) -> list[np.ndarray]:
    """The most likely token at each masked position of each window."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    found = []
    for window in windows:
        logits = model(**{name: window[name] for name in names}).prediction_logits[0]
        positions = window["target_positions"][0][window["target_ids"][0] != IGNORED]
        found.append(logits[positions].argmax(dim=-1).numpy())
    return found


def targets(windows: Windows) -> list[np.ndarray]:
    """The right token at each masked position of each window."""
    return [window["target_ids"][window["target_ids"] != IGNORED].numpy() for window in windows]


def token_counts(shards: Shards) -> np.ndarray:
    """How often each token occurs in the split."""
    vocab_size = shards.manifest.tokenizer.vocab_size
    counts = np.zeros(vocab_size, dtype=np.int64)
    for document, num_tokens in enumerate(shards.document_index().num_tokens):
        counts += np.bincount(shards.read(document, 0, int(num_tokens)), minlength=vocab_size)
    return counts


def print_words(windows: Windows, found: dict[str, list[np.ndarray]], tokenizer: Any) -> None:
    """Print one masked word of each of some evenly spaced windows, not chosen by its guesses."""
    right = targets(windows)
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    print("\nmasked words of held-out documents: right / untrained model / trained model")
    for number in np.linspace(0, len(windows) - 1, NUM_SHOWN).astype(int):
        window, answers = windows[number], right[number]
        places = window["target_positions"][0][: len(answers)]
        ids = window["input_ids"][0][window["attention_mask"][0] == 1]
        original = ids.clone()
        original[places] = torch.as_tensor(answers)
        whole = [  # words of one piece that were replaced by [MASK]
            n
            for n, place in enumerate(places)
            if ids[place] == tokenizer.mask_token_id and _is_word(pieces, original, place)
        ]
        if not whole:
            continue
        shown = whole[len(whole) // 2]
        before = _text(pieces, ids[1 : places[shown]]).split()[-WORDS_AROUND:]
        after = _text(pieces, ids[places[shown] + 1 :]).split()[:WORDS_AROUND]
        words = [answers[shown], *(found[name][number][shown] for name in ("untrained", "trained"))]
        texts = " / ".join(repr(tokenizer.decode([word]).strip()) for word in words)
        print(f"  {' '.join([*before, '____', *after])}\n      {texts}")


def _is_word(pieces: list[str], ids: torch.Tensor, place: torch.Tensor) -> bool:
    """Whether the piece at ``place`` begins a word of letters, and the next one begins another."""
    piece, following = pieces[int(ids[place])], pieces[int(ids[place + 1])]  # [SEP] is last
    return piece[0] == WORD_START and piece[1:].isalpha() and not following[0].isalnum()


def _text(pieces: list[str], ids: torch.Tensor) -> str:
    """The text of ``ids``, with [MASK] and [SEP] as words of their own."""
    words = (pieces[int(number)] for number in ids)
    return "".join(f" {word}" if word.startswith("[") else word for word in words).replace(
        WORD_START, " "
    )


def print_accuracy(folder: Path, windows: Windows, found: dict[str, list[np.ndarray]]) -> None:
    counts = token_counts(Shards(folder / "shards", TRAIN))
    right = np.concatenate(targets(windows))
    print(f"\nmasked tokens predicted right, of {len(right):,} in held-out documents:")
    print(f"  the most frequent token  {(right == counts.argmax()).mean():.1%}")
    for name, values in found.items():
        print(f"  {name:<23}  {(np.concatenate(values) == right).mean():.1%}")

    train, evaluations = metrics(folder)
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    print("\nmasked-word loss, nats per token:")
    print(f"  first step: {train[0]['mlm_loss']:.3f}")
    print(f"  last step ({train[-1]['step']}): {train[-1]['mlm_loss']:.3f}")
    print(f"  held-out documents: {evaluations[-1]['eval_mlm_loss']:.3f}")
    print(f"  unigram entropy of the corpus: {entropy:.3f} ({entropy / math.log(2):.2f} bits)")
    print(f"next-sentence accuracy, held out: {evaluations[-1]['eval_nsp_accuracy']:.1%}")


def main() -> int:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = Path(sys.argv[1])
    windows = held_out_windows(load_run_config(folder / "run" / RUN_CONFIG_NAME))
    models = before_and_after(transformers.BigBirdForPreTraining, folder / "export")
    found = {name: guesses(model, windows) for name, model in models.items()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "export")
    print_words(windows, found, tokenizer)
    print_accuracy(folder, windows, found)
    print("\noutput:")
    for name, what in {
        "documents.jsonl": "the documents",
        "tokenizer": "the tokenizer",
        "shards": "the shards (plain WebDataset tars, an index, a manifest)",
        "run": "the run: checkpoints, metrics.jsonl, samples.jsonl, TensorBoard events",
        "export": "the model in Hub format",
        "curves.png": "curves of losses, rates and throughput",
    }.items():
        print(f"  {folder / name}: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
