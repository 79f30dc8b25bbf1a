"""The run config: what a pretraining run is, as frozen pydantic models. One key, one meaning.

Read from YAML by ``bigbird_ds.training.config.file``; every description below is also what
``docs/config.md`` lists. A key that would have no effect is refused, never ignored.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from bigbird_ds.errors import ConfigError
from bigbird_ds.objectives.gap_sentences import GapOptions, GapSentences


class Section(BaseModel):
    """A section of the run config: unknown keys and infinite numbers are refused, values never
    change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _refuse_without_effect(section: Any, section_name: str, option: str) -> None:
    """Raise ConfigError where an option that ``section.name`` does not read was set."""
    value, chosen = getattr(section, option), section.name
    if value != type(section).model_fields[option].default:
        raise ConfigError(
            f"{section_name}.{option} has no effect on {chosen}",
            seen=f"{section_name}.{option}={value!r}, {section_name}.name={chosen}",
            needed=f"options of {chosen} alone",
            change=f"leave out {section_name}.{option}, or change {section_name}.name",
        )


class ObjectiveConfig(Section):
    name: Literal["mlm_nsp", "mlm", "gap_sentences"] = Field(
        "mlm_nsp",
        description="mlm_nsp: masked tokens and next sentence (BERT); mlm: masked tokens alone; "
        "gap_sentences: write the sentences that were taken out (PEGASUS), with a BigBirdPegasus",
    )
    mask_fraction: float = Field(
        0.15, gt=0, lt=1, description="mlm, mlm_nsp: share of the tokens that become targets"
    )
    whole_words: bool = Field(True, description="mask whole words, not single pieces")
    target_length: PositiveInt = Field(
        256, description="gap_sentences: tokens of the target, </s> counted"
    )
    strategy: str = Field(
        "ind_orig",
        description="gap_sentences: which sentences are taken out: ind_orig, ind_uniq, seq_orig, "
        "seq_uniq (by ROUGE-1 F1 against the rest), lead or random",
    )
    gap_ratio: float | tuple[float, float] = Field(
        (0.15, 0.45),
        description="gap_sentences: share of a document's sentences that is taken out, as far as "
        "the target has room: a number, or two to draw between for each window",
    )
    score_noise: float = Field(
        0.2, description="gap_sentences: scores are multiplied by 1 +- up to this"
    )
    keep_fraction: float = Field(
        0.2, description="gap_sentences: share of the chosen sentences that stay in the input too"
    )
    input_mask_fraction: float = Field(
        0.0, description="gap_sentences: share of the input's tokens to mask besides (0: none)"
    )

    @model_validator(mode="after")
    def _check_effect(self) -> ObjectiveConfig:
        """Refuse options of another objective, and look at the values of this one's."""
        foreign = (
            ["mask_fraction", *([] if self.input_mask_fraction else ["whole_words"])]
            if self.name == GapSentences.name
            else [field.name for field in dataclasses.fields(GapOptions)]
        )
        for name in foreign:
            _refuse_without_effect(self, "objective", name)
        _ = self.gap_options
        return self

    @property
    def gap_options(self) -> GapOptions:
        """The options of ``gap_sentences``, checked."""
        ratio = self.gap_ratio
        return GapOptions(
            target_length=self.target_length,
            strategy=self.strategy,
            gap_ratio=ratio if isinstance(ratio, tuple) else (ratio, ratio),
            score_noise=self.score_noise,
            keep_fraction=self.keep_fraction,
            input_mask_fraction=self.input_mask_fraction,
        )


class DataConfig(Section):
    train: str = Field(description="shards folder; its train split is read")
    validation: str | None = Field(
        None, description="shards folder; its validation split is read (null: no evaluation)"
    )
    tokenizer: str = Field(description="tokenizer folder that made the shards")
    sequence_length: PositiveInt = Field(
        description="tokens in a window, [CLS] and [SEP] counted; a multiple of the block size"
    )
    workers: int = Field(2, ge=0, description="processes per rank that read and mask ahead")
    check_hashes: bool = Field(
        True, description="compare every shard's sha256 with the manifest before the first step"
    )


class BatchConfig(Section):
    sequences: PositiveInt = Field(description="sequences in an optimizer step, over all ranks")
    micro: PositiveInt = Field(description="sequences that one rank computes at a time")


class ParallelConfig(Section):
    sequence: PositiveInt = Field(1, description="ranks that share one sequence")


DecayRate = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    name: Literal["adamw", "adafactor"] = Field(
        "adamw", description="adafactor: far less memory for its state, at ZeRO stage 0 alone"
    )
    lr: float = Field(
        1e-4,
        gt=0,
        description="peak learning rate; adafactor's is relative to the size of the weights, and "
        "never above 1 / sqrt(step)",
    )
    betas: tuple[DecayRate, DecayRate] = Field((0.9, 0.999), description="adamw: decay rates")
    eps: float = Field(1e-6, gt=0, description="adamw: epsilon")
    weight_decay: float = Field(0.01, ge=0, description="not applied to biases and norms")
    clip: float = Field(1.0, ge=0, description="largest global gradient norm (0: no clipping)")

    @model_validator(mode="after")
    def _check_effect(self) -> OptimizerConfig:
        for name in ("betas", "eps") if self.name != "adamw" else ():
            _refuse_without_effect(self, "optimizer", name)
        return self


class ScheduleConfig(Section):
    warmup_steps: int = Field(0, ge=0, description="steps over which lr rises linearly")
    total_steps: PositiveInt | None = Field(
        None, description="step at which lr has fallen linearly to 0 (null: train.steps)"
    )


class TrainConfig(Section):
    steps: PositiveInt = Field(description="optimizer steps")
    seed: int = Field(0, ge=0, description="of weights, order, masks, partners and dropout")
    save_every: int = Field(1000, ge=0, description="steps between checkpoints (0: the last alone)")
    keep_checkpoints: PositiveInt = Field(3, description="older checkpoints are removed")
    eval_every: int = Field(0, ge=0, description="steps between evaluations (0: after the last)")
    eval_windows: PositiveInt | None = Field(
        None, description="windows of an evaluation, spread over the validation split (null: all)"
    )
    log_every: PositiveInt = Field(10, description="steps between log lines")
    activation_checkpointing: bool = Field(
        False, description="recompute each layer in backward: less memory, a third more time"
    )
    compile: bool = Field(
        False,
        description="run each layer as one graph of torch.compile, with its small operations "
        "fused; for GPUs (on a CPU it gained 1 to 4 %)",
    )


class RunConfig(Section):
    """A whole run. ``model`` and ``deepspeed`` are mappings here; files were read before."""

    model: dict[str, Any] = Field(
        description="Hub-format config.json, a folder with one (its weights are the start), "
        "or the same keys inline"
    )
    initial_weights: str | None = Field(
        None, description="set from `model` where it names a folder with weights"
    )
    objective: ObjectiveConfig = ObjectiveConfig()
    data: DataConfig
    batch: BatchConfig
    parallel: ParallelConfig = ParallelConfig()
    deepspeed: dict[str, Any] = Field(
        default_factory=lambda: {"zero_optimization": {"stage": 1}},
        description="DeepSpeed JSON file or the same keys inline: ZeRO, bf16, offload",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig
    output: str = Field(description="run folder: checkpoints, metrics, TensorBoard events")
    resume: str = Field(
        "auto", description="auto: go on from the newest checkpoint of `output`, never, or a path"
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> RunConfig:
        for key in ("eval_every", "eval_windows"):
            value, default = getattr(self.train, key), TrainConfig.model_fields[key].default
            if value != default and self.data.validation is None:
                raise ConfigError(
                    "an evaluation is asked for without validation data",
                    seen=f"train.{key}={value}, data.validation=null",
                    needed="a shards folder with a validation split",
                    change=f"data.validation, or leave out train.{key}",
                )
        if self.train.compile and self.parallel.sequence > 1:
            raise ConfigError(
                "layers that exchange blocks between ranks are not compiled",
                seen=f"train.compile=true, parallel.sequence={self.parallel.sequence}",
                needed="one of the two",
                change="train.compile=false, or parallel.sequence=1",
            )
        if self.schedule.warmup_steps > self.total_steps:
            raise ConfigError(
                "the warm-up is longer than the schedule",
                seen=f"schedule.warmup_steps={self.schedule.warmup_steps}",
                needed=f"at most {self.total_steps} (schedule.total_steps, or train.steps)",
                change="schedule.warmup_steps",
            )
        if self.total_steps < self.train.steps:
            raise ConfigError(
                "the run goes on after its learning rate has fallen to 0",
                seen=f"schedule.total_steps={self.total_steps}",
                needed=f"at least train.steps={self.train.steps}",
                change="schedule.total_steps or train.steps",
            )
        return self

    @property
    def total_steps(self) -> int:
        """Steps of the learning rate schedule."""
        return self.schedule.total_steps or self.train.steps

    def accumulation(self, world_size: int) -> int:
        """Micro-batches that each rank computes per optimizer step.

        Raises:
            ConfigError: the global batch does not divide into ranks x micro-batches.
        """
        data_ranks = world_size // self.parallel.sequence
        per_round = self.batch.micro * data_ranks
        if self.batch.sequences % per_round:
            raise ConfigError(
                "the batch does not divide over the ranks",
                seen=f"batch.sequences={self.batch.sequences}, batch.micro={self.batch.micro}, "
                f"{data_ranks} data-parallel rank(s)",
                needed=f"batch.sequences a multiple of micro x ranks = {per_round} "
                "(the rest is gradient accumulation)",
                change="batch.sequences or batch.micro",
            )
        return self.batch.sequences // per_round
