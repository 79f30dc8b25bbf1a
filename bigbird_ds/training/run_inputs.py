"""What a run reads: tokenizer, model config, objective and shards, and the batches made of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.format import TRAIN, VALIDATION
from bigbird_ds.data.loader import EvaluationBatches, TrainingBatches
from bigbird_ds.hub.checkpoints import TrainingState
from bigbird_ds.objectives import Objective, build_objective
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.corpora import open_corpora
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.model_setup import resolve_model_config
from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.ranks.progress import PATIENCE_AT_START
from bigbird_ds.vocabulary import Vocabulary


@dataclass(frozen=True)
class Inputs:
    """Tokenizer, model config and shards, opened and checked on each rank.

    ``validation`` is empty if the run does not evaluate.
    """

    model_config: ModelConfig
    objective: Objective
    corpora: list[Corpus]
    validation: list[Corpus]

    @classmethod
    def open(cls, config: RunConfig) -> Inputs:
        data = config.data
        vocabulary = Vocabulary.from_folder(data.tokenizer)
        model_config = resolve_model_config(config, vocabulary)
        objective = build_objective(config.objective.name, vocabulary, config.objective.options)
        corpora = open_corpora(data.train_corpora, TRAIN, vocabulary)
        for corpus in corpora:
            shards = corpus.shards
            objective.check_documents(
                str(shards.folder), shards.num_documents, shards.num_undivided
            )
        validation = open_corpora(data.validation_corpora, VALIDATION, vocabulary)
        return cls(model_config, objective, corpora, validation)

    def check_hashes(self, ranks: Ranks) -> None:
        """Check the sha256 of every shard, a share of them on each rank; collective."""
        ranks.progress.at("hashing the shards", PATIENCE_AT_START)
        for corpus in (*self.corpora, *self.validation):
            hashing = partial(corpus.shards.check_hashes, ranks.rank, ranks.world_size)
            ranks.jointly(partial(hashing, after_each=ranks.progress.within))


def training_batches(
    corpora: list[Corpus],
    objective: Objective,
    config: RunConfig,
    ranks: Ranks,
    state: TrainingState,
) -> TrainingBatches:
    return TrainingBatches(
        corpora,
        objective,
        seed=config.train.seed,
        sequence_length=config.data.sequence_length,
        global_batch=config.batch.sequences,
        micro_batch=config.batch.micro,
        rank=ranks.data_rank,
        world_size=ranks.data_world_size,
        workers=config.data.workers,
        timeout_s=config.train.hang_timeout / 2,
        state=state.data or None,
    )


def evaluation_batches(
    corpora: list[Corpus], objective: Objective, config: RunConfig, ranks: Ranks
) -> EvaluationBatches | None:
    if not corpora:
        return None
    return EvaluationBatches(
        corpora,
        objective,
        seed=config.train.seed,
        sequence_length=config.data.sequence_length,
        micro_batch=config.batch.micro,
        rank=ranks.data_rank,
        world_size=ranks.data_world_size,
        workers=config.data.workers,
        timeout_s=config.train.hang_timeout / 2,
        max_windows=config.train.eval_windows,
    )
