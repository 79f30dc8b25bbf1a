"""What the examples share: options, documents to learn from, and a training with each attention.

Every example trains the same model twice, with transformers' own attention and with ours, from the
same weights on the same batches. So their losses must be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from bigbird_ds.errors import EXIT_USER_ERROR, CheckpointError, DataError, UserError, absent
from bigbird_ds.integrations.transformers import use_block_sparse_attention
from data_prep.python_docs import module_text

TRANSFORMERS, ACCELERATED = "transformers", "accelerated"
MIN_CHARACTERS = 2000  # of a module's documentation: shorter ones are not used


@dataclass(frozen=True)
class Result:
    """Results of one training run: ``losses`` are means over intervals of steps."""

    before: float
    after: float
    losses: list[float]
    seconds_per_step: float


def run(main: Callable[[], int]) -> int:
    """The exit code of an example; an error of the user is printed without a traceback."""
    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


def option_parser(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """The options of every example; ``defaults`` are those of length, steps, batch and lr."""
    parser = argparse.ArgumentParser(
        description=(doc or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, help="an export, or a model of its family in Hub format"
    )
    parser.add_argument("--length", type=int, help="tokens per input")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, help="inputs per step")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--attention",
        choices=("both", TRANSFORMERS, ACCELERATED),
        default="both",
        help="train with transformers' attention, with ours, or with both",
    )
    parser.set_defaults(**defaults)
    return parser


def prepare(options: argparse.Namespace, family: str = "big_bird") -> Any:
    """Check the options, quiet transformers' log, and return the tokenizer of the model.

    With a model of another ``family`` transformers names a field of a config, not the reason.
    """
    config = options.model / "config.json"
    if not config.is_file():
        raise CheckpointError(
            "there is no model to fine-tune",
            seen=absent(config),
            needed="a model in Hub format",
            change="run `bigbird-ds export RUN FOLDER` first, and name that folder",
        )
    found = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    if found != family:
        raise CheckpointError(
            "this example fine-tunes a model of another family",
            seen=f'model_type "{found}" in {config}',
            needed=f'"{family}"',
            change="name an export of that family, or take another example",
        )
    data = getattr(options, "data", None)
    if data is not None and not data.is_file():
        raise DataError(
            "the texts to learn from are missing",
            seen=absent(data),
            needed="a file as `--help` describes it",
            change="--data",
        )
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoTokenizer.from_pretrained(options.model)


def require_texts(options: argparse.Namespace, train: Any, test: Any) -> None:
    """Refuse a training or a test without a single text."""
    if len(train) == 0 or len(test) == 0:
        raise DataError(
            "there are too few texts, or they are too short",
            seen=f"{len(train)} to train on, {len(test)} to test, with --texts {options.texts} "
            f"and --length {options.length}",
            needed="at least one to train on and one to test; one in four is for the test",
            change="a larger --texts, a smaller --length, or longer and more texts",
        )


def train_with_each_attention(
    options: argparse.Namespace,
    load: Callable[[], Any],
    score: Callable[[Any], float],
    train: Any,
    *,
    trainer_class: type[transformers.Trainer] = transformers.Trainer,
    arguments: dict[str, Any] | None = None,
    part: Callable[[Any], Any] = lambda model: model,
    **trainer_options: Any,
) -> dict[str, Result]:
    """Train the model that ``load`` returns, once for each attention; name -> result.

    ``score`` takes a trainer and returns the figure to report, before and after the training.
    ``arguments`` add to transformers' training arguments, ``trainer_options`` to the trainer's;
    ``part`` returns the model of transformers inside what ``load`` returned.
    """
    names = (TRANSFORMERS, ACCELERATED) if options.attention == "both" else (options.attention,)
    results = {}
    for name in names:
        transformers.set_seed(options.seed)  # the same new head and the same dropout
        model = load()
        if name == ACCELERATED:
            use_block_sparse_attention(part(model))
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_class(
                model=model,
                args=_training_arguments(folder, options, trainer_class, arguments or {}),
                train_dataset=train,
                **trainer_options,
            )
            trainer.remove_callback(transformers.PrinterCallback)
            before = score(trainer)
            runtime = trainer.train().metrics["train_runtime"]
            losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
            results[name] = Result(before, score(trainer), losses, runtime / options.steps)
    return results


def _training_arguments(
    folder: str, options: argparse.Namespace, trainer_class: Any, more: dict[str, Any]
) -> transformers.TrainingArguments:
    writes = issubclass(trainer_class, transformers.Seq2SeqTrainer)
    kind = transformers.Seq2SeqTrainingArguments if writes else transformers.TrainingArguments
    return kind(
        output_dir=folder,
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        per_device_eval_batch_size=options.batch,
        learning_rate=options.lr,
        lr_scheduler_type="linear",
        warmup_steps=options.steps // 10,
        seed=options.seed,
        save_strategy="no",
        logging_steps=max(options.steps // 8, 1),
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **more,
    )


def report(figure: str, results: dict[str, Result]) -> None:
    """Print the results side by side; ``figure`` names the score."""
    print(f"{'attention':<14}{figure:>10}{'trained':>10}{'s/step':>10}  losses")
    for name, result in results.items():
        losses = " ".join(f"{loss:.4f}" for loss in result.losses)
        print(
            f"{name:<14}{result.before:>10.3f}{result.after:>10.3f}"
            f"{result.seconds_per_step:>10.3f}  {losses}"
        )
    if len(results) == 2:
        pairs = zip(*(result.losses for result in results.values()), strict=True)
        print(f"largest difference of a loss: {max(abs(one - two) for one, two in pairs):.1e}")


def standard_library(is_test: bool) -> Iterator[Path]:
    """Paths of the modules of the standard library that have much documentation."""
    for path in split(Path(sysconfig.get_path("stdlib")).glob("*.py"), is_test):
        if len(module_text(path)) >= MIN_CHARACTERS:
            yield path


def split(paths: Any, is_test: bool) -> list[Path]:
    """One path in four is for the test, whatever the others are.

    They come in a hashed order, so that early names are not preferred.
    """
    return sorted((path for path in paths if (digest(path)[0] % 4 == 0) == is_test), key=digest)


def digest(path: Path) -> bytes:
    """A hash of the last three parts of a path, so that it does not depend on the machine."""
    return hashlib.sha256("/".join(path.parts[-3:]).encode()).digest()
