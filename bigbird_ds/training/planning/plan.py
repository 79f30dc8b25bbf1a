"""The plan of a run before it starts: batch arithmetic, epochs of data, memory and time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bigbird_ds.data.corpora import shares_of, short_names
from bigbird_ds.data.format import TRAIN, VALIDATION
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.limits import limit_in_transformers
from bigbird_ds.sizes import GIB
from bigbird_ds.training.checkpoints.disk import free_bytes
from bigbird_ds.training.config.run_config import RunConfig
from bigbird_ds.training.corpora import open_corpora
from bigbird_ds.training.deepspeed.config import (
    deepspeed_config,
    offloads,
    uses_bf16,
    zero_stage,
)
from bigbird_ds.training.families import ModelConfig
from bigbird_ds.training.metrics import duration
from bigbird_ds.training.model_setup import model_config_without_tokenizer, resolve_model_config
from bigbird_ds.training.planning.fit import fit_lines
from bigbird_ds.training.planning.flops import flops_of_run
from bigbird_ds.training.planning.gpus import GPU
from bigbird_ds.training.planning.memory import MemoryPlan, plan_memory
from bigbird_ds.training.planning.pattern_reach import reach_line
from bigbird_ds.vocabulary import Vocabulary

# The goal of docs/performance.md for BigBird-base on an H200; no GPU was measured yet.
DEFAULT_MFU = 0.35


@dataclass(frozen=True)
class PlanOptions:
    """What a plan assumes beyond the run config.

    Attributes:
        ranks: processes of the run.
        tokens_per_s: measured throughput of all ranks together; None: not measured.
        gpu: the GPU of each rank; None: a CPU run.
        mfu: share of the GPU's peak that the run reaches, used without ``tokens_per_s``; None:
            ``DEFAULT_MFU``.
        tokens: number of tokens in the training split; None: as in the shards, if they exist.
    """

    ranks: int = 1
    tokens_per_s: float | None = None
    gpu: GPU | None = None
    mfu: float | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class PlannedCorpus:
    """A corpus of the run.

    Attributes:
        name: of several corpora.
        share: of the run's tokens.
        tokens: in its training split; None: unknown.
    """

    name: str
    share: float
    tokens: int | None


@dataclass(frozen=True)
class Planned:
    """A run config completed with what its tokenizer and shards say, or with assumptions.

    Attributes:
        model_config: the model's config.
        corpora: that the run reads.
        assumed: a line for each thing that does not exist yet.
    """

    model_config: ModelConfig
    corpora: list[PlannedCorpus]
    assumed: list[str]


def describe_plan(config: RunConfig, options: PlanOptions | None = None) -> str:
    """The whole plan as text.

    A tokenizer or shards folder that does not exist yet is replaced by an assumption, which the
    plan states.

    Raises:
        ConfigError, DataError: the run would fail at its start.
    """
    options = options or PlanOptions()
    planned = complete(config, options)
    memory = plan_memory(config, planned.model_config, options.ranks, options.gpu is not None)
    limit = limit_in_transformers(planned.model_config)
    reach = reach_line(planned.model_config, config.data.sequence_length)
    return "\n".join(
        [
            *_step_lines(config, options.ranks),
            *_work_lines(config, planned, options),
            *([reach] if reach else []),
            *([f"export: {limit}"] if limit else []),
            _disk_line(config, memory),
            *planned.assumed,
            "",
            *memory_lines(config, memory),
            *(fit_lines(config, planned.model_config, options.ranks, options.gpu, memory)),
        ]
    )


def complete(config: RunConfig, options: PlanOptions) -> Planned:
    """Check what the start of the run checks; assume what does not exist yet.

    Raises:
        ConfigError, DataError: the run would fail at its start.
    """
    if options.ranks % config.parallel.sequence:
        raise ConfigError(
            "the number of ranks is not a multiple of the sequence-parallel size",
            seen=f"--ranks {options.ranks}, parallel.sequence={config.parallel.sequence}",
            needed=f"a multiple of {config.parallel.sequence}",
            change="--ranks or parallel.sequence",
        )
    deepspeed_config(config, options.ranks)
    assumed = []
    vocabulary = None
    if Path(config.data.tokenizer).exists():
        vocabulary = Vocabulary.from_folder(config.data.tokenizer)
        model_config = resolve_model_config(config, vocabulary)
    else:
        model_config = model_config_without_tokenizer(config)
        assumed.append(
            f"assumed: {model_config.vocab_size:,} pieces, as the model config says (there is no "
            f"{config.data.tokenizer} yet)"
        )
    existing = [c for c in config.data.validation_corpora if Path(c.path).exists()]
    open_corpora(existing, VALIDATION, vocabulary)
    corpora = _planned_corpora(config, options, vocabulary)
    for config_of, corpus in zip(config.data.train_corpora, corpora, strict=True):
        if corpus.tokens is None:
            counts = "; --tokens N counts epochs" if len(corpora) == 1 else ""
            assumed.append(f"assumed: enough text (there is no {config_of.path} yet{counts})")
    return Planned(model_config, corpora, assumed)


def _planned_corpora(
    config: RunConfig, options: PlanOptions, vocabulary: Vocabulary | None
) -> list[PlannedCorpus]:
    """The corpora of the run, checked where they exist."""
    configs = config.data.train_corpora
    if options.tokens is not None and len(configs) > 1:
        raise ConfigError(
            "--tokens has no effect on several corpora",
            seen=f"--tokens {options.tokens}, {len(configs)} corpora in data.train",
            needed="shards of each corpus, whose tokens are counted",
            change="leave out --tokens",
        )
    names, shares = short_names([c.path for c in configs]), shares_of([c.weight for c in configs])
    planned = []
    for each, name, share in zip(configs, names, shares, strict=True):
        tokens = options.tokens
        if Path(each.path).exists():
            shards = open_corpora([each], TRAIN, vocabulary)[0].shards
            config.objective.kind.check_documents(
                each.path, shards.num_documents, shards.num_undivided
            )
            tokens = tokens or shards.num_tokens
        planned.append(PlannedCorpus(name, float(share), tokens))
    return planned


def _disk_line(config: RunConfig, memory: MemoryPlan) -> str:
    size, keep = memory.checkpoint, config.train.keep_checkpoints
    return (
        f"disk: {size / GIB:.2f} GiB a checkpoint, {(keep + 1) * size / GIB:.2f} GiB for {keep} "
        f"and one being written; {free_bytes(Path(config.output)) / GIB:.2f} GiB free in "
        f"{config.output}"
    )


def _step_lines(config: RunConfig, world_size: int) -> list[str]:
    accumulation = config.accumulation(world_size)
    sharing = config.parallel.sequence
    parts = f"{world_size // sharing} data-parallel rank(s)"
    if sharing > 1:
        parts = f"{world_size // sharing} group(s) of {sharing} rank(s) that share sequences"
    precision = "bf16" if uses_bf16(config) else "fp32"
    return [
        f"step: {config.batch.sequences} sequences of {config.data.sequence_length:,} tokens = "
        f"{parts} x {config.batch.micro} micro x {accumulation} accumulated",
        f"layout: {world_size} rank(s), ZeRO-{zero_stage(config)}, {precision}",
    ]


def _work_lines(config: RunConfig, planned: Planned, options: PlanOptions) -> list[str]:
    per_step = config.batch.sequences * config.data.sequence_length
    total = per_step * config.train.steps
    flops = flops_of_run(planned.model_config, config)
    run = f"run: {config.train.steps:,} steps, {total:,} tokens"
    corpora, mixed = planned.corpora, []
    if len(corpora) == 1:
        run += _epochs(corpora[0], total)
    else:
        mixed = [
            f"data: {each.name}, {100 * each.share:.4g} % of the tokens{_epochs(each, total)}"
            for each in corpora
        ]
    return [
        run,
        *mixed,
        f"work: {flops / 1e6:,.0f} MFLOP per token, {flops * total:.2e} FLOP in total",
        _time_line(total, flops, options),
    ]


def _epochs(corpus: PlannedCorpus, total: int) -> str:
    if corpus.tokens is None:
        return ""
    epochs = total * corpus.share / max(corpus.tokens, 1)
    return f", about {epochs:.2f} epochs of {corpus.tokens:,} tokens"


def _time_line(total: int, flops: float, options: PlanOptions) -> str:
    gpu = options.gpu
    if options.tokens_per_s is not None:
        speed = options.tokens_per_s
        return f"time: {duration(total / speed)} at {speed:,.0f} tokens/s"
    if gpu is None or gpu.peak is None:
        return "time: pass --tokens-per-s, from the log of a short run"
    mfu = DEFAULT_MFU if options.mfu is None else options.mfu
    speed = options.ranks * gpu.peak * mfu / flops
    origin = "--mfu" if options.mfu is not None else "assumed: no GPU was measured yet; see --mfu"
    return (
        f"time: {duration(total / speed)} at {speed:,.0f} tokens/s, {mfu:.0%} of the bf16 peak of "
        f"{options.ranks} x {gpu.name}, {gpu.peak / 1e12:,.0f} TFLOP/s ({origin})"
    )


def memory_lines(config: RunConfig, memory: MemoryPlan) -> list[str]:
    """The memory of one rank by kind."""
    where = "on its GPU" if memory.on_gpu else "on the CPU"
    lines = [f"memory per rank: {memory.total / GIB:.2f} GiB {where}, at the peak of a step"]
    kinds = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "temporary": memory.temporary,
        "buckets": memory.buckets,
    }
    if not memory.on_gpu:
        kinds["process"] = memory.host
        lines.append(
            "  (with MALLOC_MMAP_MAX_=65536; the default is faster and keeps freed memory)"
        )
    lines += [f"  {name:<12}{size / GIB:8.3f} GiB" for name, size in kinds.items() if size]
    if memory.on_gpu:
        lines.append(f"host memory per rank: {memory.host / GIB:.2f} GiB and the data workers")
    if memory.offloaded:
        lines.append(f"  (the optimizer's {memory.offloaded / GIB:.3f} GiB are in host memory)")
    if offloads(config, "offload_param"):
        lines.append("  (weights are counted without offload_param: DeepSpeed keeps up to")
        lines.append("  stage3_max_live_parameters of them on the GPU)")
    if not config.train.activation_checkpointing:
        lines.append("  (train.activation_checkpointing=true reduces the activations)")
    return lines
