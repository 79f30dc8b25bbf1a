"""Report what `make demo-pegasus` learned, on held-out documents, before and after training.

Prints removed sentences beside what transformers generates in their place from the export, the
accuracy and loss on their tokens against a guess without context, and ROUGE scores (by the
`rouge-score` package) against two baselines: sentences removed elsewhere, and the text next to the
gap.

python -m launch.demo_pegasus_report DEMO_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbird_ds.hub.checkpoints import RUN_CONFIG_NAME
from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.vocabulary import Vocabulary
from launch.demo_models import before_and_after, held_out_windows, metrics

NUM_WRITTEN = 40  # windows of held-out documents to generate for
NUM_SHOWN = 5
CHARACTERS = 160  # shown of each text
WORDS_AROUND = 12  # of the input, on each side of the first gap; the model reads the whole window
IGNORED = -100

Windows = list[dict[str, torch.Tensor]]


@torch.no_grad()
def loss_and_accuracy(model: Any, windows: Windows) -> tuple[float, float]:
    """Mean loss in nats and share of right guesses per target token, computed by transformers."""
    loss = right = count = 0.0
    for window in windows:
        output, counted = model(**window), window["labels"] != IGNORED
        found = output.logits.argmax(dim=-1) == window["labels"]
        loss += float(output.loss) * int(counted.sum())
        right += int((found & counted).sum())
        count += int(counted.sum())
    return loss / count, right / count


def without_context(windows: Windows) -> tuple[float, float]:
    """The lowest loss and highest accuracy of a guess that is the same for all target tokens.

    They are the entropy of the target tokens, and the share of the most frequent one.
    """
    tokens = torch.cat([window["labels"][window["labels"] != IGNORED] for window in windows])
    shares = tokens.unique(return_counts=True)[1].double() / len(tokens)
    return float(-(shares * shares.log()).sum()), float(shares.max())


def write_texts(model: Any, tokenizer: Any, windows: Windows) -> list[str]:
    """Generate a text for each window with beam search."""
    texts = []
    for window in windows:
        inputs = {name: window[name] for name in ("input_ids", "attention_mask")}
        ids = model.generate(**inputs, num_beams=2, max_length=window["labels"].shape[1] + 1)
        texts.append(decode(tokenizer, ids[0]))
    return texts


def decode(tokenizer: Any, ids: Any) -> str:
    """The text of ``ids`` on one line, without special tokens."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True).replace("<n>", " ")
    return " ".join(text.split())


def around_the_gap(
    window: dict[str, torch.Tensor], tokenizer: Any, gap: int
) -> tuple[list[str], list[str]]:
    """The words of the input before and after its first gap, or after its beginning."""
    ids = window["input_ids"][0].tolist()
    place = ids.index(gap) if gap in ids else 0
    return decode(tokenizer, ids[:place]).split(), decode(tokenizer, ids[place:]).split()


def print_accuracy(models: dict[str, Any], windows: Windows) -> None:
    count = sum(int((window["labels"] != IGNORED).sum()) for window in windows)
    print(
        f"\ntokens of removed sentences, {count:,} in {len(windows)} windows of held-out documents:"
    )
    rows = {"without context, at best": without_context(windows)} | {
        name: loss_and_accuracy(model, windows) for name, model in models.items()
    }
    for name, (loss, accuracy) in rows.items():
        print(f"  {name:<24}  predicted right {accuracy:5.1%}, loss {loss:.3f} nats")


def print_rouge(targets: list[str], written: dict[str, list[str]]) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"])
    print(f"\nROUGE F1 of generated sentences, {len(targets)} windows of held-out documents:")
    for name, texts in written.items():
        scores = [scorer.score(*pair) for pair in zip(targets, texts, strict=True)]
        means = (sum(s[kind].fmeasure for s in scores) / len(scores) for kind in scores[0])
        same = sum(text == target for text, target in zip(texts, targets, strict=True))
        print(
            f"  {name:<27}  ROUGE-1 {next(means):.3f}, ROUGE-L {next(means):.3f}, "
            f"{same} the same word for word"
        )


def main() -> int:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = Path(sys.argv[1])
    config = load_run_config(folder / "run" / RUN_CONFIG_NAME)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "export")
    models = before_and_after(
        transformers.BigBirdPegasusForConditionalGeneration, folder / "export"
    )
    models["untrained"].generation_config = models["trained"].generation_config

    everything = [w for w in held_out_windows(config) if (w["labels"] != IGNORED).any()]
    chosen = np.linspace(0, len(everything) - 1, min(NUM_WRITTEN, len(everything))).astype(int)
    windows = [everything[number] for number in chosen]
    targets = [
        decode(tokenizer, window["labels"][window["labels"] != IGNORED]) for window in windows
    ]
    gap = Vocabulary.from_folder(config.data.tokenizer).sentence_mask
    contexts = [around_the_gap(window, tokenizer, gap) for window in windows]
    written = (
        {
            "sentences removed elsewhere": targets[len(targets) // 2 :]
            + targets[: len(targets) // 2],
            "the text next to the gap": [  # as many words as the target has
                " ".join(before[-len(target.split()) :] or after[: len(target.split())])
                for (before, after), target in zip(contexts, targets, strict=True)
            ],
        }
        | {name: write_texts(model, tokenizer, windows) for name, model in models.items()}
    )

    print("\nremoved sentences of held-out documents, and what is generated in their place:")
    for number in np.linspace(0, len(windows) - 1, NUM_SHOWN).astype(int):
        before, after = contexts[number]
        print(f"  {' '.join([*before[-WORDS_AROUND:], '____', *after[:WORDS_AROUND]])}")
        print(f"    removed:    {targets[number][:CHARACTERS]}")
        for name in models:
            print(f"    {name + ':':<11} {written[name][number][:CHARACTERS]}")
    print_accuracy(models, everything)
    print_rouge(targets, written)

    train, evaluations = metrics(folder)
    print("\nloss in the run, nats per target token:")
    print(f"  first step: {train[0]['target_loss']:.3f}")
    print(f"  last step ({train[-1]['step']}): {train[-1]['target_loss']:.3f}")
    print(f"  held-out documents: {evaluations[-1]['eval_target_loss']:.3f}")
    print(f"\nthe model in Hub format: {folder / 'export'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
