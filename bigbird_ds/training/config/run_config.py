"""The run config of a pretraining run, as frozen pydantic models.

``bigbird_ds.training.config.file`` reads it from YAML; ``docs/config.md`` is made from the
descriptions below. A key that would have no effect is an error, never ignored.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from bigbird_ds.errors import ConfigError
from bigbird_ds.objectives import OBJECTIVES
from bigbird_ds.sections import Section
from bigbird_ds.training.config.choice import choice
from bigbird_ds.training.config.corpora import CorpusConfig, check_corpora
from bigbird_ds.training.optimizers import OPTIMIZERS
from bigbird_ds.training.schedules import SCHEDULES
from bigbird_ds.training.trackers import TRACKERS

_Objective: Any = choice(OBJECTIVES, default="mlm_nsp")
_Optimizer: Any = choice(OPTIMIZERS, default="adamw")
_Schedule: Any = choice(SCHEDULES, default="linear")


class ObjectiveConfig(_Objective):
    """The pretraining objective and its options."""


class DataConfig(Section):
    """What the run reads, and how."""

    train: str | tuple[CorpusConfig, ...] = Field(
        description="shards folder, whose train split is used; or a list of them, mixed: "
        "[{path: ..., weight: ...}, ...], with weights that are shares of the tokens"
    )
    validation: str | tuple[CorpusConfig, ...] | None = Field(
        None,
        description="shards folder, whose validation split is used (null: no evaluation); or a "
        "list as for `train`: a loss for each, and their mean by weight",
    )
    tokenizer: str = Field(description="tokenizer folder that the shards were written with")
    sequence_length: PositiveInt = Field(
        description="tokens in a window, including [CLS] and [SEP]; a multiple of the block size"
    )
    workers: int = Field(
        2, ge=0, description="data-loader processes per rank (0: load in the training process)"
    )
    check_hashes: bool = Field(
        True, description="check every shard's sha256 against the manifest before the first step"
    )

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _check_corpora(cls, value: Any, info: ValidationInfo) -> Any:
        return check_corpora(value, f"data.{info.field_name}")

    @property
    def train_corpora(self) -> tuple[CorpusConfig, ...]:
        return _corpora(self.train)

    @property
    def validation_corpora(self) -> tuple[CorpusConfig, ...]:
        """Empty without validation."""
        return () if self.validation is None else _corpora(self.validation)


def _corpora(value: str | tuple[CorpusConfig, ...]) -> tuple[CorpusConfig, ...]:
    return (CorpusConfig(path=value, weight=1.0),) if isinstance(value, str) else value


class BatchConfig(Section):
    """How many sequences an optimizer step and a forward pass take."""

    sequences: PositiveInt = Field(
        description="global batch size: sequences per optimizer step over all ranks"
    )
    micro: PositiveInt = Field(
        description="micro-batch size: sequences per forward pass of a data-parallel rank"
    )


class ParallelConfig(Section):
    """How ranks share one sequence."""

    sequence: PositiveInt = Field(
        1, description="sequence (context) parallelism: ranks that share one sequence"
    )


class OptimizerConfig(_Optimizer):
    """The optimizer and its options."""

    lr: float = Field(
        1e-4,
        gt=0,
        description="peak learning rate; for adafactor relative to the size of the weights, and "
        "at most 1 / sqrt(step)",
    )
    weight_decay: float = Field(
        0.01, ge=0, description="weight decay, not applied to biases and norms"
    )
    clip: float = Field(1.0, ge=0, description="maximum global gradient norm (0: no clipping)")


class ScheduleConfig(_Schedule):
    """The learning rate schedule and its options."""


class ProfileConfig(Section):
    start: PositiveInt = Field(description="first step to profile")
    steps: PositiveInt = Field(3, description="number of steps to profile")


class TrainConfig(Section):
    """How long the run trains, and what it does once in a while."""

    steps: PositiveInt = Field(description="optimizer steps")
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="seed of weights, sample order, masks, sentence pairs and dropout",
    )
    save_every: int = Field(
        1000, ge=0, description="steps between checkpoints (0: only after the last step)"
    )
    save_minutes: float = Field(
        0.0, ge=0, description="minutes since the last save after which to save too (0: never)"
    )
    background_saves: bool = Field(
        True,
        description="write checkpoints while training continues, from a copy in host memory; at "
        "most one at a time (false: training waits until they are written)",
    )
    keep_checkpoints: PositiveInt = Field(
        3, description="number of checkpoints to keep; older ones are removed"
    )
    keep_every: int = Field(
        0, ge=0, description="checkpoints of multiples of this step are never removed (0: none)"
    )
    time_limit: float | None = Field(
        None,
        gt=0,
        description="seconds from its start within which a run saves and stops, with exit code 75 "
        "(null: until the end of the SLURM job, if SLURM_JOB_END_TIME is set)",
    )
    eval_every: int = Field(
        0, ge=0, description="steps between evaluations (0: only after the last step)"
    )
    eval_windows: PositiveInt | None = Field(
        None,
        description="windows per evaluation, spread over each validation split (null: all)",
    )
    skip_steps: tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="first and last step whose batches are read but not trained on: a resume from "
        "an earlier checkpoint passes a place where the loss breaks (null: none)",
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="what follows a loss or gradient norm that is not finite: stop (save the state "
        "before the step and end) or skip (leave out its update, as with skip_steps)",
    )
    max_nonfinite_in_a_row: PositiveInt = Field(
        10,
        description="steps that on_nonfinite=skip leaves out in a row; one more ends the run",
    )
    spike_sigmas: float = Field(
        6.0,
        ge=0,
        description="log the samples of a step whose loss is this many standard deviations above "
        "the mean of the last 100 steps (0: never)",
    )
    log_every: PositiveInt = Field(10, description="steps between log lines")
    trackers: tuple[str, ...] = Field(
        ("tensorboard",),
        description="trackers that get metrics, config and sample predictions: "
        f"{', '.join(TRACKERS)} ([]: none); see docs/metrics.md",
    )
    profile: ProfileConfig | None = Field(
        None,
        description="{start: N, steps: K} profiles K steps from step N on, on rank 0: trace, memory"
        " and shares of the time; see docs/performance.md (null: no step)",
    )
    hang_timeout: float = Field(
        600.0,
        ge=0,
        description="seconds without progress on any rank after which a run is ended (0: never); "
        "three times as long for the first step, a save and the start of an evaluation, six times "
        "before the first step",
    )
    activation_checkpointing: bool = Field(
        False,
        description="recompute each layer in the backward pass: less memory, a third more time",
    )
    compile: bool = Field(
        False,
        description="compile each layer as one torch.compile graph, which fuses its small "
        "operations; for GPUs (on a CPU it gained 1 to 4 %)",
    )

    @field_validator("trackers")
    @classmethod
    def _check_trackers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            TRACKERS.named(name)
        if len(set(names)) < len(names):
            raise ConfigError(
                "a tracker is given twice",
                seen=f"train.trackers={list(names)}",
                needed="each name once",
                change="train.trackers",
            )
        return names


class RunConfig(Section):
    """The config of a run. ``model`` and ``deepspeed`` are mappings, already read from any file."""

    model: dict[str, Any] = Field(
        description="Hub-format config.json, a Hub-format folder (whose weights are loaded), "
        "or the same keys inline"
    )
    initial_weights: str | None = Field(
        None, description="set automatically when `model` is a folder with weights"
    )
    continue_from: str | None = Field(
        None,
        description="run folder or checkpoint of an earlier stage, whose weights, optimizer state "
        "and step a run without checkpoints takes over: another data.sequence_length, positions "
        "extended, the data from its start (null: a new run)",
    )
    objective: ObjectiveConfig = ObjectiveConfig()
    data: DataConfig
    batch: BatchConfig
    parallel: ParallelConfig = ParallelConfig()
    deepspeed: dict[str, Any] = Field(
        default_factory=lambda: {"zero_optimization": {"stage": 1}},
        description="DeepSpeed JSON file, or the same keys inline: ZeRO, bf16, offload",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig
    output: str = Field(
        description="run folder: checkpoints, metrics, logs; {SLURM_ARRAY_TASK_ID} in it, as in "
        "any text, is replaced by the number of the job's task"
    )
    resume: str = Field(
        "auto",
        description="auto (newest intact checkpoint of `output`), never, or the path of a "
        "checkpoint",
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> RunConfig:
        for key in ("eval_every", "eval_windows"):
            value, default = getattr(self.train, key), TrainConfig.model_fields[key].default
            if value != default and self.data.validation is None:
                raise ConfigError(
                    "evaluation needs validation data",
                    seen=f"train.{key}={value}, data.validation=null",
                    needed="a shards folder with a validation split",
                    change=f"data.validation, or leave out train.{key}",
                )
        if self.output.startswith("~"):
            raise ConfigError(
                "~ is no home folder here: no shell has replaced it",
                seen=f"output={self.output}",
                needed="the whole path; on the command line $HOME, which shells replace",
                change="output",
            )
        if self.continue_from is not None and self.resume not in ("auto", "never"):
            raise ConfigError(
                "two checkpoints to start from",
                seen=f"continue_from={self.continue_from}, resume={self.resume}",
                needed="only one: resume goes on in the same data at the same length, "
                "continue_from starts a stage of another length",
                change="continue_from, or resume=auto",
            )
        if self.continue_from is not None and self.initial_weights is not None:
            raise ConfigError(
                "the weights of the model would have no effect",
                seen=f"continue_from={self.continue_from}, weights of {self.initial_weights}",
                needed="a model config without weights",
                change="model: the JSON file or mapping of the earlier stage; or continue_from",
            )
        limit = TrainConfig.model_fields["max_nonfinite_in_a_row"].default
        if self.train.on_nonfinite == "stop" and self.train.max_nonfinite_in_a_row != limit:
            raise ConfigError(
                "train.max_nonfinite_in_a_row has no effect if no step is skipped",
                seen=f"train.max_nonfinite_in_a_row={self.train.max_nonfinite_in_a_row}, "
                "train.on_nonfinite=stop",
                needed="train.on_nonfinite=skip",
                change="train.on_nonfinite, or leave out train.max_nonfinite_in_a_row",
            )
        skipped = self.train.skip_steps
        if skipped is not None and skipped[0] > skipped[1]:
            raise ConfigError(
                "the steps to skip are no range",
                seen=f"train.skip_steps={list(skipped)}",
                needed="the first and the last step, for example [1200, 1210]",
                change="train.skip_steps",
            )
        profile = self.train.profile
        if profile is not None and profile.start + profile.steps - 1 > self.train.steps:
            raise ConfigError(
                "the steps to profile are not all in the run",
                seen=f"train.profile={profile.model_dump()}, train.steps={self.train.steps}",
                needed="start + steps - 1 at most train.steps",
                change="train.profile",
            )
        if self.train.compile and self.parallel.sequence > 1:
            raise ConfigError(
                "train.compile does not support sequence parallelism",
                seen=f"train.compile=true, parallel.sequence={self.parallel.sequence}",
                needed="only one of the two",
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
                "the schedule ends before the run",
                seen=f"schedule.total_steps={self.total_steps}",
                needed=f"at least train.steps={self.train.steps}",
                change="schedule.total_steps or train.steps",
            )
        if self.schedule.kind.check is not None:
            self.schedule.kind.check(self.total_steps, self.schedule.options)
        return self

    @property
    def total_steps(self) -> int:
        """Steps of the learning rate schedule; ``train.steps`` if it has no end."""
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
                "the global batch does not divide into micro-batches of the ranks",
                seen=f"batch.sequences={self.batch.sequences}, batch.micro={self.batch.micro}, "
                f"{data_ranks} data-parallel rank(s)",
                needed=f"batch.sequences: a multiple of micro x data-parallel ranks = {per_round} "
                "(the quotient is the gradient accumulation)",
                change="batch.sequences or batch.micro",
            )
        return self.batch.sequences // per_round
