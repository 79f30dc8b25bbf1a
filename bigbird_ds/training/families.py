"""Fields of the model config that follow from the tokenizer, for both model families."""

from __future__ import annotations

from typing import Any

from bigbird_ds.errors import DataError
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.pegasus.configuration import BigBirdPegasusConfig
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.vocabulary import BIGBIRD, Vocabulary

ModelConfig = BigBirdConfig | BigBirdPegasusConfig


def config_from_tokenizer(config: RunConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Model config fields taken from the tokenizer unless the run config sets them.

    Raises:
        DataError: the tokenizer belongs to another family than the objective trains.
    """
    family = config.objective.kind.family
    if vocabulary.family != family:
        raise DataError(
            "the tokenizer is of the wrong family for the objective",
            seen=f"a tokenizer of the {vocabulary.family} family for {config.objective.name}",
            needed=f"one of the {family} family (`bigbird-ds tokenizer --family {family}`)",
            change="data.tokenizer, or objective.name",
        )
    values = {
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad,
        "eos_token_id": vocabulary.eos,
    }
    if family == BIGBIRD:
        return values | {"bos_token_id": vocabulary.bos, "sep_token_id": vocabulary.sep}
    start = vocabulary.sentence_mask  # the start token of a Pegasus decoder
    return values | {"bos_token_id": start, "decoder_start_token_id": start}
