"""Report the results of `make demo-pegasus` on held-out documents, before and after training.

Prints the loss of the gap sentences, and the ROUGE scores (by the `rouge-score` package) of those
that transformers generates from the export.

python launch/demo_pegasus_report.py DEMO_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.format import VALIDATION
from bigbird_ds.data.loader import EvaluationBatches
from bigbird_ds.data.shards import Shards
from bigbird_ds.hub.checkpoints import RUN_CONFIG_NAME
from bigbird_ds.objectives import build_objective
from bigbird_ds.training.config.file import load_run_config
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.vocabulary import Vocabulary

NUM_WRITTEN = 24  # windows of held-out documents to generate for
NUM_SHOWN = 2


def held_out_windows(config: RunConfig) -> list[dict[str, torch.Tensor]]:
    """The validation windows that have a target, with the masks of the run's evaluation."""
    assert isinstance(config.data.validation, str)
    vocabulary = Vocabulary.from_folder(config.data.tokenizer)
    batches = EvaluationBatches(
        [Corpus(Shards(config.data.validation, VALIDATION))],
        build_objective(config.objective.name, vocabulary, config.objective.options),
        seed=config.train.seed,
        sequence_length=config.data.sequence_length,
        micro_batch=1,
    )
    return [batch for batch in batches if (batch["labels"] != -100).any()]


@torch.no_grad()
def mean_loss(model: Any, windows: list[dict[str, torch.Tensor]]) -> float:
    """The mean loss in nats per target token, computed by transformers."""
    counts = [int((window["labels"] != -100).sum()) for window in windows]
    losses = [float(model(**window).loss) for window in windows]
    return sum(loss * n for loss, n in zip(losses, counts, strict=True)) / sum(counts)


def write_texts(model: Any, tokenizer: Any, windows: list[dict[str, torch.Tensor]]) -> list[str]:
    """Generate a text for each window with beam search, without repeated token trigrams."""
    texts = []
    for window in windows:
        inputs = {name: window[name] for name in ("input_ids", "attention_mask")}
        ids = model.generate(**inputs, num_beams=2, no_repeat_ngram_size=3)
        texts.append(tokenizer.decode(ids[0], skip_special_tokens=True))
    return texts


def main() -> int:
    import transformers
    from rouge_score.rouge_scorer import RougeScorer

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = Path(sys.argv[1])
    config = load_run_config(folder / "run" / RUN_CONFIG_NAME)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "export")
    model_class = transformers.BigBirdPegasusForConditionalGeneration
    trained = model_class.from_pretrained(folder / "export").eval()
    torch.manual_seed(0)
    untrained = model_class(trained.config).eval()
    untrained.generation_config = trained.generation_config

    everything = held_out_windows(config)
    losses = {
        name: mean_loss(model, everything)
        for name, model in (("untrained", untrained), ("trained", trained))
    }
    print(f"\nloss on {len(everything)} windows of held-out documents, nats per target token:")
    for name, loss in losses.items():
        print(f"  {name:<10} {loss:.3f}")

    windows = everything[:NUM_WRITTEN]
    targets = [
        tokenizer.decode(window["labels"][window["labels"] != -100], skip_special_tokens=True)
        for window in windows
    ]
    scorer = RougeScorer(["rouge1", "rougeL"])
    written = {}
    print(f"\nROUGE F1 of generated gap sentences, {len(windows)} windows of held-out documents:")
    for name, model in (("untrained", untrained), ("trained", trained)):
        written[name] = write_texts(model, tokenizer, windows)
        scores = [scorer.score(*pair) for pair in zip(targets, written[name], strict=True)]
        means = (sum(s[kind].fmeasure for s in scores) / len(scores) for kind in scores[0])
        print(f"  {name:<10} ROUGE-1 {next(means):.3f}, ROUGE-L {next(means):.3f}")
    for target, text in list(zip(targets, written["trained"], strict=True))[:NUM_SHOWN]:
        print(f"\n  removed:   {target[:300]}\n  generated: {text[:300]}")

    text = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    train = [line for line in lines if "loss" in line]
    evaluation = [line for line in lines if "eval_loss" in line]
    print("\nloss in the run, nats per target token:")
    print(f"  first step: {train[0]['target_loss']:.3f}")
    print(f"  last step ({train[-1]['step']}): {train[-1]['target_loss']:.3f}")
    print(
        f"  held-out documents: {evaluation[-1]['eval_target_loss']:.3f} "
        f"({evaluation[-1]['eval_target_accuracy']:.1%} of the tokens right)"
    )
    print(f"\nthe model in Hub format: {folder / 'export'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
