"""Report what `make demo-pegasus` learned, on held-out documents, before and after training.

Prints the loss and accuracy of the gap sentences, and the ROUGE scores (by the `rouge-score`
package) of those that transformers generates from the export, against two baselines: a gap sentence
of another document, and the text next to the gap.

python -m launch.demo_pegasus_report DEMO_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from bigbird_ds.hub.checkpoints import RUN_CONFIG_NAME
from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.vocabulary import Vocabulary
from launch.demo_models import before_and_after, held_out_windows, metrics

NUM_WRITTEN = 24  # windows of held-out documents to generate for
NUM_SHOWN = 2
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


def write_texts(model: Any, tokenizer: Any, windows: Windows) -> list[str]:
    """Generate a text for each window with beam search, without repeated token trigrams."""
    texts = []
    for window in windows:
        inputs = {name: window[name] for name in ("input_ids", "attention_mask")}
        ids = model.generate(**inputs, num_beams=2, no_repeat_ngram_size=3)
        texts.append(tokenizer.decode(ids[0], skip_special_tokens=True))
    return texts


def next_to_the_gap(window: dict[str, torch.Tensor], target: str, tokenizer: Any, gap: int) -> str:
    """As many words as the target has, from the input before its first gap, or else after it."""
    ids = window["input_ids"][0].tolist()
    place = ids.index(gap) if gap in ids else 0
    count = len(target.split())
    before = tokenizer.decode(ids[:place], skip_special_tokens=True).split()
    after = tokenizer.decode(ids[place:], skip_special_tokens=True).split()
    return " ".join(before[-count:] or after[:count])


def main() -> int:
    import transformers
    from rouge_score.rouge_scorer import RougeScorer

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
    print(f"\nper target token, {len(everything)} windows of held-out documents:")
    for name, model in models.items():
        loss, accuracy = loss_and_accuracy(model, everything)
        print(f"  {name:<10} loss {loss:.3f} nats, predicted right {accuracy:.1%}")

    windows = everything[:NUM_WRITTEN]
    targets = [
        tokenizer.decode(window["labels"][window["labels"] != IGNORED], skip_special_tokens=True)
        for window in windows
    ]
    gap = Vocabulary.from_folder(config.data.tokenizer).sentence_mask
    written = {
        "a gap sentence of another document": targets[len(targets) // 2 :]
        + targets[: len(targets) // 2],
        "the text next to the gap": [
            next_to_the_gap(window, target, tokenizer, gap)
            for window, target in zip(windows, targets, strict=True)
        ],
    } | {name: write_texts(model, tokenizer, windows) for name, model in models.items()}
    scorer = RougeScorer(["rouge1", "rougeL"])
    print(f"\nROUGE F1 of generated gap sentences, {len(windows)} windows of held-out documents:")
    for name, texts in written.items():
        scores = [scorer.score(*pair) for pair in zip(targets, texts, strict=True)]
        means = (sum(s[kind].fmeasure for s in scores) / len(scores) for kind in scores[0])
        print(f"  {name:<34} ROUGE-1 {next(means):.3f}, ROUGE-L {next(means):.3f}")
    for number in range(min(NUM_SHOWN, len(windows))):
        print(f"\n  removed:   {targets[number][:200]}")
        for name in models:
            print(f"  {name + ':':<10} {written[name][number][:200]}")

    train, evaluations = metrics(folder)
    print("\nloss in the run, nats per target token:")
    print(f"  first step: {train[0]['target_loss']:.3f}")
    print(f"  last step ({train[-1]['step']}): {train[-1]['target_loss']:.3f}")
    print(
        f"  held-out documents: {evaluations[-1]['eval_target_loss']:.3f} "
        f"({evaluations[-1]['eval_target_accuracy']:.1%} of the tokens right)"
    )
    print(f"\nthe model in Hub format: {folder / 'export'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
