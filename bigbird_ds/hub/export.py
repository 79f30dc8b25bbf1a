"""Export a checkpoint to a model repository that ``transformers`` loads, and compare logits.

Everything (config.json, model.safetensors, the tokenizer's files and a model card) is written to a
temporary folder next to the target, which is renamed once it is complete and checked.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bigbird_ds.errors import CheckpointError
from bigbird_ds.hub.auto import load_pretrained
from bigbird_ds.hub.checkpoints import (
    TOKENIZER_FOLDER,
    find_checkpoint,
    read_state,
)
from bigbird_ds.hub.generation import write_generation_config
from bigbird_ds.hub.limits import limit_in_transformers, other_pattern
from bigbird_ds.hub.model_card import RunRecords, write_model_card
from bigbird_ds.hub.new_folder import new_folder
from bigbird_ds.hub.tokenizer_files import TOKENIZER_NAME, copy_tokenizer, write_tokenizer_config
from bigbird_ds.hub.verify import check_finite
from bigbird_ds.log import logger
from bigbird_ds.models.pretrained import DEFAULT_SHARD_BYTES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and the result of the comparison with ``transformers``.

    ``largest_difference`` is None if transformers is not installed. ``limit`` describes the inputs
    that transformers cannot compute, if any.
    """

    checkpoint: Path
    target: Path
    step: int
    largest_difference: float | None
    transformers_version: str | None
    limit: str | None = None


def export(
    source: Path,
    target: Path,
    dtype: str = "float32",
    max_shard_size: int = DEFAULT_SHARD_BYTES,
) -> ExportReport:
    """Export the checkpoint ``source``, or the newest intact one of the run ``source``.

    Args:
        source: a run folder, or a folder ``checkpoints/step-N``.
        target: the folder to create; it must not exist, or be empty.
        dtype: a name in ``DTYPES``; written to config.json, whose dtype transformers 5 loads by
            default.
        max_shard_size: in bytes; larger weights are split into shards with an index.

    Raises:
        CheckpointError: there is no intact checkpoint, its weights are not finite, the run has no
            tokenizer, or transformers computes other logits. Nothing is left at ``target`` then.
        ConfigError: ``target`` is not empty, or cannot be created.
    """
    with new_folder(target) as folder:
        checkpoint = find_checkpoint(source)
        run_folder = checkpoint.parent.parent
        tokenizer = _tokenizer_of(run_folder)
        check_finite(checkpoint, "model*.safetensors")
        model = load_pretrained(checkpoint)
        state = read_state(checkpoint)
        model.save_pretrained(folder, DTYPES[dtype], max_shard_size)
        write_generation_config(folder, model, state)
        copy_tokenizer(tokenizer, folder)
        write_tokenizer_config(folder, model.config.max_position_embeddings)
        records = RunRecords.read(state, run_folder)
        difference, version = _compare(folder)
        write_model_card(folder / "README.md", model, records, dtype, version)
    limit = limit_in_transformers(model.config)
    return ExportReport(checkpoint, target, state.step, difference, version, limit)


def _tokenizer_of(run_folder: Path) -> Path:
    folder = run_folder / TOKENIZER_FOLDER
    if not (folder / TOKENIZER_NAME).is_file():
        raise CheckpointError(
            "the run has no tokenizer to export",
            seen=f"no {folder / TOKENIZER_NAME}",
            needed="the tokenizer folder that the run copied when it started",
            change=f"copy it to {folder}",
        )
    return folder


def _compare(folder: Path) -> tuple[float | None, str | None]:
    """Load the export with transformers and bigbird_ds, and compare their logits in float32.

    transformers ignores the random style, so both compute with its own pattern.

    One input is short (full attention) and one is long (block-sparse, if the model has enough
    positions); both have padding at the end.

    Returns:
        The largest difference and the version of transformers; None for both if transformers is
        not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        return None, None
    import transformers

    with _quiet(transformers.utils.logging):  # problems are raised below
        ours = load_pretrained(folder, dtype=torch.float32).eval()
        note = other_pattern(ours.config)
        ours.config.random_style = "hf"
        theirs_class = getattr(transformers, type(ours).__name__)
        theirs, loading = theirs_class.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
        _check_loading(loading)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if len(tokenizer) > ours.config.vocab_size:
            raise CheckpointError(
                "the tokenizer has more pieces than the model has embeddings",
                seen=f"{len(tokenizer):,} pieces",
                needed=f"at most {ours.config.vocab_size:,}",
                change="the tokenizer folder of the run",
            )
        largest = _largest_difference(ours, theirs.eval())
    logger.info("transformers %s gives the same logits", transformers.__version__)
    if note is not None:
        logger.warning("the comparison is of its own pattern: %s (docs/random_styles.md)", note)
    return largest, transformers.__version__


@contextlib.contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Within this context transformers logs only errors and shows no progress bars."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _check_loading(loading: dict[str, Any]) -> None:
    unexpected = {kind: sorted(keys) for kind, keys in loading.items() if keys}
    if unexpected:
        raise CheckpointError(
            "transformers does not find the expected tensors in the export",
            seen=str(unexpected),
            needed="no missing, unexpected or wrongly shaped tensor",
            change="report this bug in the export",
        )


def _largest_difference(ours: Any, theirs: Any) -> float:
    """The largest difference of any logit; CheckpointError if it exceeds rounding error."""
    largest = 0.0
    # The long input comes first: a short one switches transformers to full attention for good.
    for length in _comparison_lengths(ours.config):
        inputs = _comparison_input(ours.config, length)
        with torch.no_grad():
            expected, found = _outputs(theirs, inputs), ours(**inputs)
        for name in ("logits", "prediction_logits", "seq_relationship_logits"):
            if name in expected.keys():  # noqa: SIM118 (a model output, not a dict)
                gap = float((expected[name] - found[name]).abs().max())
                largest = max(largest, gap)
                allowed = 1e-4 * max(1.0, float(expected[name].abs().max()))
                if not gap <= allowed:
                    raise CheckpointError(
                        "transformers computes different logits from the export",
                        seen=f"{name} differ by {gap:.2e} at length {length}",
                        needed=f"at most {allowed:.1e}",
                        change="report this bug in the export or the model",
                    )
    return largest


def _outputs(theirs: Any, inputs: dict[str, torch.Tensor]) -> Any:
    try:
        return theirs(**inputs)
    except (RuntimeError, ValueError, IndexError) as cause:
        raise CheckpointError(
            "transformers cannot run the export",
            seen=f"{tuple(inputs['input_ids'].shape)} tokens: {str(cause).splitlines()[0]}",
            needed="logits to compare",
            change="report this bug in the export or the model",
        ) from cause


def _comparison_lengths(config: Any) -> list[int]:
    lengths = [2 * config.block_size]
    if limit_in_transformers(config) is None:
        sparse = config.max_full_attention_tokens + config.block_size
        lengths.insert(0, min(sparse, config.max_position_embeddings))
    return [length for length in lengths if length <= config.max_position_embeddings]


def _comparison_input(config: Any, length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, config.vocab_size, (2, length), generator=generator)
    mask = torch.ones(2, length, dtype=torch.int64)
    mask[1, length - length // 8 :] = 0
    return {"input_ids": ids, "attention_mask": mask}
