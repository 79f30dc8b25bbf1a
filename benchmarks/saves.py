"""Time that training loses at a save, in the foreground and in the background.

    python benchmarks/saves.py                    # base width, 4 layers
    torchrun --nproc_per_node 8 benchmarks/saves.py --layers 12 --stage 3 --output FOLDER

One real run under DeepSpeed (fp32). Windows of as many steps alternate on one clock: without a
save, with a foreground save after the first step, with a background save there. The first round is
not timed. Of each save: how long training waits for it (its call, and, where the window ends before
it is complete, its end), and how much longer its window takes than the one without a save of the
same round, which includes steps that run slower beside the thread.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # the package need not be installed

import command_line  # noqa: E402
from plan_memory import make_shards  # noqa: E402

from bigbird_ds.training.checkpoints.saving import Saver  # noqa: E402
from bigbird_ds.training.config.file import check_run_config  # noqa: E402
from bigbird_ds.training.ranks import distributed  # noqa: E402
from bigbird_ds.training.ranks.clock import Clock  # noqa: E402
from bigbird_ds.training.ranks.distributed import Ranks  # noqa: E402
from bigbird_ds.training.ranks.stopping import StopRequest  # noqa: E402
from bigbird_ds.training.setup import Run, build_run  # noqa: E402
from bigbird_ds.training.step import agree_on_step, fetch, optimizer_step, state_after  # noqa: E402

CONTENDERS = ("no save", "foreground", "background")


@dataclass(frozen=True)
class Result:
    """Medians of a contender, in seconds."""

    contender: str
    window_s: float
    step_s: float  # without a save
    waited_s: float
    waited_share_every_100_steps: float
    lost_s: float  # against the window without a save
    checkpoint_gb: float


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--shards", type=Path, help="shards folder (default: Python's docs)")
    parser.add_argument("--tokenizer", type=Path, help="the tokenizer folder it was written with")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--micro", type=int, default=1)
    parser.add_argument("--stage", type=int, default=1, help="ZeRO stage")
    parser.add_argument("--steps", type=int, default=8, help="steps of a window")
    parser.add_argument("--repeats", type=int, default=5, help="timed windows of each contender")
    parser.add_argument("--output", type=Path, help="folder to save in (default: a temporary one)")
    command_line.add_threads_option(parser)
    arguments = parser.parse_args()
    if (arguments.shards is None) != (arguments.tokenizer is None):
        parser.error("--shards and --tokenizer must be given together")
    ranks = distributed.start()
    facts = command_line.begin(ranks.device.type, arguments.threads)
    with tempfile.TemporaryDirectory(dir=arguments.output) as scratch:
        folder = Path(ranks.gather(scratch)[0])
        if ranks.is_first and arguments.shards is None:
            make_shards(folder, "bigbird")
        ranks.barrier()
        results = measure(ranks, settings_of(folder, arguments, ranks), arguments)
        ranks.barrier()
    if ranks.is_first:
        for result in results:
            print(result)
        command_line.write_results("saves", arguments, facts, results)


def settings_of(folder: Path, arguments: Any, ranks: Ranks) -> dict[str, Any]:
    return {
        "model": {
            "num_hidden_layers": arguments.layers,
            "hidden_size": arguments.hidden,
            "num_attention_heads": max(1, arguments.hidden // 64),
            "intermediate_size": 4 * arguments.hidden,
            "max_position_embeddings": arguments.length,
        },
        "objective": {"name": "mlm_nsp"},
        "data": {
            "train": str(arguments.shards or folder / "shards-bigbird"),
            "tokenizer": str(arguments.tokenizer or folder / "tokenizer-bigbird"),
            "sequence_length": arguments.length,
            "workers": 1,
        },
        "batch": {"sequences": arguments.micro * ranks.world_size, "micro": arguments.micro},
        "deepspeed": {"zero_optimization": {"stage": arguments.stage}},
        "train": {"steps": 100_000, "save_every": 0, "keep_checkpoints": 1},
        "output": str(folder / "run"),
        "resume": "never",
    }


def measure(ranks: Ranks, settings: dict[str, Any], arguments: Any) -> list[Result]:
    run = build_run(check_run_config(settings, "benchmark"), ranks)
    clock = Clock(None, run.checkpoint_bytes, 0.0)
    savers: dict[str, Saver] = {}
    for contender in CONTENDERS:
        is_background = contender == "background"
        train = run.config.train.model_copy(update={"background_saves": is_background})
        run.config = run.config.model_copy(update={"train": train})
        savers[contender] = Saver(run, clock)
    batches = iter(run.batches)
    seconds: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    waits: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    for number in range(1 + arguments.repeats):
        for contender, saver in savers.items():
            took, waited = window(run, batches, saver, arguments.steps, contender != "no save")
            if number:
                seconds[contender].append(took)
                waits[contender].append(waited)
    run.batches.close()
    without = seconds["no save"]
    step = statistics.median(without) / arguments.steps
    found = []
    for contender, times in seconds.items():
        waited = statistics.median(waits[contender])
        found.append(
            Result(
                contender,
                window_s=statistics.median(times),
                step_s=step,
                waited_s=waited,
                waited_share_every_100_steps=waited / (waited + 100 * step),
                lost_s=statistics.median(a - b for a, b in zip(times, without, strict=True)),
                checkpoint_gb=run.checkpoint_bytes / 1e9,
            )
        )
    return found


def window(run: Run, batches: Any, saver: Saver, steps: int, saves: bool) -> tuple[float, float]:
    """Seconds of some steps, with a save after the first; and of these, waited for the save."""
    request, waited = StopRequest(), 0.0

    def wait(call: Callable[[], None]) -> None:
        nonlocal waited
        since = time.perf_counter()
        call()
        waited += time.perf_counter() - since

    run.ranks.barrier()
    began = time.perf_counter()
    for number in range(steps):
        fetched = fetch(batches)
        agreed = agree_on_step(run, fetched, request, saver.is_written)
        if agreed.written:
            wait(saver.settle)
        result = optimizer_step(
            run, run.state.step + 1, fetched.micro_batches, agreed.counts, request
        )
        assert result is not None
        run.state = state_after(run, fetched, agreed.counts.tokens, result)
        if saves and not number:
            wait(saver.save)
    wait(saver.settle)
    run.ranks.barrier()
    return time.perf_counter() - began, waited


if __name__ == "__main__":
    main()
