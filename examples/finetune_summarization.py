"""Fine-tune an export of BigBirdPegasus to summarize: generate the first paragraph of a text.

The texts are documentation of modules and classes of the standard library, with that of all their
functions and methods; the summary is the first paragraph, which the input lacks. Whole modules are
held out for the test. Scores are ROUGE of what ``generate()`` writes; the baseline takes the first
sentence of the input.

    python examples/finetune_summarization.py work/pegasus-export

``--data FILE.jsonl`` reads other texts: a line has "text" and "summary"; one line in four is for
the test.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
from pathlib import Path
from typing import Any

import transformers
from datasets import Dataset
from fine_tuning import (
    option_parser,
    prepare,
    report,
    require_texts,
    run,
    split,
    train_with_each_attention,
)
from rouge_score.rouge_scorer import RougeScorer

from data_prep.python_docs import module_sections

MIN_WORDS = 30  # of a text
IGNORED = -100
Pair = tuple[str, str]  # text and summary


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    tokenizer = prepare(options, "bigbird_pegasus")
    train, test = (_pairs(options, is_test) for is_test in (False, True))
    require_texts(options, train, test)
    print(f"{len(train)} texts to train on, {len(test)} to test")
    leads = [text.partition(". ")[0] for text, _ in test]
    print(f"first sentence of the text: ROUGE-L {mean_rouge(leads, test):.3f}")
    sets = [_data_set(tokenizer, pairs, options) for pairs in (train, test)]
    written: list[list[str]] = []

    def score(trainer: Any) -> float:
        ids = trainer.predict(sets[1]).predictions
        ids[ids == IGNORED] = tokenizer.pad_token_id
        written.append(tokenizer.batch_decode(ids, skip_special_tokens=True))
        return mean_rouge(written[-1], test)

    results = train_with_each_attention(
        options,
        lambda: transformers.BigBirdPegasusForConditionalGeneration.from_pretrained(options.model),
        score,
        sets[0],
        trainer_class=transformers.Seq2SeqTrainer,
        arguments={
            "predict_with_generate": True,
            "generation_max_length": options.summary_length,
            "generation_num_beams": options.beams,
        },
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
    )
    report("ROUGE-L", results)
    for (_, summary), text in list(zip(test, written[-1], strict=True))[: options.show]:
        print(f"\n  summary:   {summary[:200]}\n  generated: {text[:200]}")
    return 0


def mean_rouge(texts: list[str], pairs: list[Pair]) -> float:
    """The mean F1 of ROUGE-L."""
    scorer = RougeScorer(["rougeL"])
    scores = [scorer.score(one[1], text)["rougeL"] for one, text in zip(pairs, texts, strict=True)]
    return sum(score.fmeasure for score in scores) / len(scores)


def _pairs(options: argparse.Namespace, is_test: bool) -> list[Pair]:
    number = options.texts // 4 if is_test else options.texts
    if options.data is not None:
        with options.data.open(encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream]
        chosen = [record for n, record in enumerate(records) if (n % 4 == 0) == is_test]
        return [(record["text"], record["summary"]) for record in chosen[:number]]
    found = []
    for path in split(Path(sysconfig.get_path("stdlib")).glob("*.py"), is_test):
        for sections in module_sections(path):
            summary, _, text = "\n\n".join(sections).partition("\n\n")
            if len(text.split()) >= MIN_WORDS:
                found.append((" ".join(text.split()), " ".join(summary.split())))
    return found[:number]


def _data_set(tokenizer: Any, pairs: list[Pair], options: argparse.Namespace) -> Any:
    texts, summaries = zip(*pairs, strict=True)
    inputs = tokenizer(
        list(texts), truncation=True, max_length=options.length, padding="max_length"
    )
    targets = tokenizer(list(summaries), truncation=True, max_length=options.summary_length)
    columns = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    return Dataset.from_dict({**columns, "labels": targets["input_ids"]})


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, length=768, steps=300, batch=4, lr=5e-4)
    parser.add_argument("--data", type=Path, help="texts to use instead, .jsonl")
    parser.add_argument("--texts", type=int, default=600, help="maximum number of training texts")
    parser.add_argument("--summary-length", type=int, default=48, help="tokens")
    parser.add_argument("--beams", type=int, default=2, help="of the beam search")
    parser.add_argument("--show", type=int, default=2, help="texts to print")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
