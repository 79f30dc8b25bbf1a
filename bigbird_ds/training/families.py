"""What training must know of the two model families: class, config and what a tokenizer decides."""

from __future__ import annotations

from typing import Any

from bigbird_ds.errors import ConfigError, DataError
from bigbird_ds.log import logger
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.masked_lm import BigBirdForMaskedLM
from bigbird_ds.models.bigbird.pretraining import BigBirdForPreTraining
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.models.pegasus.generation import BigBirdPegasusForConditionalGeneration
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.vocabulary import Vocabulary

ModelConfig = BigBirdConfig | BigBirdPegasusConfig

# objective -> the class that it trains
MODEL_CLASSES: dict[str, type[Any]] = {
    "mlm_nsp": BigBirdForPreTraining,
    "mlm": BigBirdForMaskedLM,
    "gap_sentences": BigBirdPegasusForConditionalGeneration,
}


def config_from_tokenizer(config: RunConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Fields of the model's config that the tokenizer decides where the run config does not.

    Raises:
        DataError: the tokenizer is of the family that the objective does not train.
    """
    family = "pegasus" if config.objective.name == "gap_sentences" else "bigbird"
    if vocabulary.family != family:
        raise DataError(
            "the tokenizer does not belong to the objective",
            seen=f"a tokenizer of the {vocabulary.family} family for {config.objective.name}",
            needed=f"one of the {family} family (`bigbird-ds tokenizer --family {family}`)",
            change="data.tokenizer, or objective.name",
        )
    values = {
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad,
        "eos_token_id": vocabulary.eos,
    }
    if family == "bigbird":
        return values | {"bos_token_id": vocabulary.bos, "sep_token_id": vocabulary.sep}
    start = vocabulary.sentence_mask  # what Pegasus' decoders begin with
    return values | {"bos_token_id": start, "decoder_start_token_id": start}


def check_target_length(config: RunConfig, model_config: ModelConfig) -> None:
    """Raise ConfigError where a target is longer than the decoder has positions for."""
    length = config.objective.target_length
    is_pegasus = isinstance(model_config, BigBirdPegasusConfig)
    if is_pegasus and length > model_config.max_position_embeddings:
        raise ConfigError(
            "the targets are longer than the decoder has positions",
            seen=f"objective.target_length={length}",
            needed=f"at most {model_config.max_position_embeddings}",
            change="objective.target_length or model.max_position_embeddings",
        )


def check_documents(config: RunConfig, num_documents: int, num_undivided: int) -> None:
    """Tell how many documents give no target, having one sentence; DataError where none does."""
    if config.objective.name != "gap_sentences" or not num_undivided:
        return
    if num_undivided == num_documents:
        raise DataError(
            "no document has two sentences",
            seen=f"{num_documents:,} documents of one sentence in {config.data.train}",
            needed="documents of two sentences at least, to take one out",
            change="the documents, or objective.name",
        )
    logger.warning(
        "data: %s of %s documents have a single sentence: they are read, and give no target",
        f"{num_undivided:,}",
        f"{num_documents:,}",
    )
