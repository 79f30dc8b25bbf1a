"""A trained model with what its evaluation needs: from a run, a checkpoint or an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bigbird_ds.errors import CheckpointError, ConfigError, absent
from bigbird_ds.hub.auto import load_pretrained
from bigbird_ds.hub.checkpoints import (
    TOKENIZER_FOLDER,
    find_checkpoint,
    is_checkpoint,
    is_export,
    is_run,
    read_state,
)
from bigbird_ds.objectives import OBJECTIVES, Objective, build_objective
from bigbird_ds.training.checkpoints.resume import with_options_before
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.vocabulary import Vocabulary

# The objective of an export, which does not say how it was trained, by its class.
_OBJECTIVE_OF_CLASS = {
    "BigBirdForMaskedLM": "mlm",
    "BigBirdForPreTraining": "mlm_nsp",
    "BigBirdPegasusForConditionalGeneration": "gap_sentences",
}


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode on its device.

    Attributes:
        folder: the checkpoint or export that was loaded.
        seed: of the run; 0 for an export.
        sequence_length: of the run; for an export, the most positions in whole blocks.
    """

    folder: Path
    model: Any
    objective: Objective
    seed: int
    sequence_length: int

    @classmethod
    def load(cls, source: Path, device: str | None, dtype: torch.dtype) -> TrainedModel:
        """Load the newest intact checkpoint of a run, a checkpoint, or an export.

        Args:
            device: as for ``torch.device``; None: the GPU if there is one.

        Raises:
            CheckpointError: ``source`` is none of these or damaged, or its class has no pretraining
                objective.
            ConfigError: there is no such device.
            DataError: the tokenizer is missing or of the wrong family.
        """
        place = chosen_device(device)
        if is_checkpoint(source) or is_run(source):
            return cls._of_checkpoint(find_checkpoint(source), place, dtype)
        if is_export(source):
            return cls._of_export(source, place, dtype)
        raise CheckpointError(
            "no model to evaluate",
            seen=str(source) if source.is_dir() else absent(source, "folder"),
            needed="a run folder, RUN/checkpoints/step-N, or a model in Hub format",
            change="the first argument",
        )

    @classmethod
    def _of_checkpoint(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> TrainedModel:
        state = read_state(folder)
        config = check_run_config(state.run_config, f"the run config in {folder}")
        config = with_options_before(config, state)
        vocabulary = Vocabulary.from_folder(folder.parent.parent / TOKENIZER_FOLDER)
        return cls(
            folder,
            load_pretrained(folder, dtype).to(device),
            build_objective(config.objective.name, vocabulary, config.objective.options),
            config.train.seed,
            config.data.sequence_length,
        )

    @classmethod
    def _of_export(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> TrainedModel:
        model = load_pretrained(folder, dtype).to(device)
        name = _OBJECTIVE_OF_CLASS.get(type(model).__name__)
        if name is None:
            raise CheckpointError(
                "a model of this class has no pretraining loss",
                seen=f"{type(model).__name__} in {folder}",
                needed="one of " + ", ".join(_OBJECTIVE_OF_CLASS),
                change="the first argument",
            )
        options = OBJECTIVES.named(name).options_class()
        objective = build_objective(name, Vocabulary.from_folder(folder), options)
        block = model.config.block_size
        most = model.config.max_position_embeddings // block * block
        return cls(folder, model, objective, 0, most)


def chosen_device(name: str | None) -> torch.device:
    """The device of this name; by default the GPU if there is one.

    Raises:
        ConfigError: the name is unknown, or there is no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as cause:
        raise ConfigError(
            "the device cannot be used",
            seen=f"--device {name}: {str(cause).splitlines()[0]}",
            needed="cpu, or cuda on a machine with a GPU that this torch supports",
            change="--device",
        ) from cause
    return device
