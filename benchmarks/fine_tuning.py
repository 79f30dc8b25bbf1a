"""Fine-tuning steps of transformers' models, as they are and accelerated: forward and backward.

    python benchmarks/fine_tuning.py                          # base width, 2 layers, CPU, minutes
    python benchmarks/fine_tuning.py --models pegasus --lengths 4096 --json result.json
    python benchmarks/fine_tuning.py --threads 1 --clock processor      # on a crowded machine
    python benchmarks/fine_tuning.py --device cuda --layers 12

`bigbird` is a BigBirdForSequenceClassification, `pegasus` a BigBirdPegasusForConditionalGeneration
with as many decoder layers and a target of 128 tokens; both with dropout 0.1. All contenders have
the same weights, input and dropout and must agree on the loss before they are timed. They take
turns, and the table gives medians. `fast products` are the fp32 matrix products that our launcher
chooses on a CPU (bigbird_ds/cpu_products.py). Under autocast transformers 5.23 crashes, so it has
no line there. Peak memory is that of one process a contender that takes two steps.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import statistics
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # the package need not be installed

from environment import environment  # noqa: E402
from gpu.report import peak_bytes, release, synchronize  # noqa: E402

from bigbird_ds.cpu_products import fast_fp32_products  # noqa: E402
from bigbird_ds.integrations.transformers import accelerate  # noqa: E402

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
TARGET_LENGTH = 128
AGREEMENT = {"fp32": 1e-5, "bf16 autocast": 2e-2, "bf16 weights": 2e-2}  # relative, of losses
SIZES = {  # width, heads, width of the feed-forward network, vocabularies, block size
    "base": (768, 12, 3072, {"bigbird": 50358, "pegasus": 96103}, 64),
    "tiny": (32, 2, 64, {"bigbird": 128, "pegasus": 128}, 16),
}


@dataclass(frozen=True)
class Contender:
    """How the one model is run. ``precision`` is one of ``AGREEMENT``."""

    accelerated: bool
    precision: str
    fast_products: bool = False

    @property
    def label(self) -> str:
        name = "accelerated" if self.accelerated else "transformers"
        return f"{name}, {self.precision}" + (", fast products" if self.fast_products else "")

    def take_over(self, model: Any) -> Any:
        """``model`` as this contender runs it; the same object."""
        if self.precision == "bf16 weights":
            model = model.to(torch.bfloat16)
        return accelerate(model) if self.accelerated else model


CONTENDERS = {
    contender.label: contender
    for contender in (
        Contender(False, "fp32"),
        Contender(True, "fp32"),
        Contender(False, "fp32", fast_products=True),
        Contender(True, "fp32", fast_products=True),
        Contender(True, "bf16 autocast"),
        Contender(False, "bf16 weights"),
        Contender(True, "bf16 weights"),
    )
}


@dataclass(frozen=True)
class Case:
    """One contender on one batch. ``model`` is ``bigbird`` or ``pegasus``."""

    contender: str
    model: str
    size: str
    layers: int
    length: int
    batch: int
    device: str


@dataclass
class Result:
    """One line of the table.

    Attributes:
        seconds: median of a step; ``all_seconds`` in the order in which they were taken.
        ratio: the time of the first contender (transformers in fp32) divided by this one's.
        loss: of training mode, with dropout from one seed.
        peak_gib: of a process of its own, model and libraries included; None: not measured.
    """

    case: Case
    seconds: float
    all_seconds: list[float]
    ratio: float
    loss: float
    peak_gib: float | None


def main() -> int:
    options = _parser().parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    facts = environment(torch.device(options.device))
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(f"\n{'model':<8} {'N':>6} {'contender':<36} {'seconds':>8} {'ratio':>7} {'GiB':>6} loss")
    results: list[Result] = []
    for model in options.models:
        for length in options.lengths:
            results += _results(_cases(options, model, length), options)
            if options.json is not None:
                _write(options, facts, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models = ("bigbird", "pegasus")
    parser.add_argument("--models", nargs="+", choices=models, default=list(models))
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--size", choices=list(SIZES), default="base")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="default: what torch chooses")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each contender")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="of the CPU")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--json", type=Path, help="write the results there, length by length")
    return parser


def _cases(options: argparse.Namespace, model: str, length: int) -> list[Case]:
    return [
        Case(name, model, options.size, options.layers, length, options.batch, options.device)
        for name in options.contenders
    ]


class Runner:
    """A model that can take steps.

    Args:
        model: of transformers, which this contender takes over.
    """

    def __init__(self, case: Case, model: Any) -> None:
        self.case, self.contender = case, CONTENDERS[case.contender]
        self.model = self.contender.take_over(model).to(case.device).train()
        self.batch = {name: x.to(case.device) for name, x in make_batch(case).items()}

    def step(self) -> None:
        """One forward and backward pass; the gradients are new."""
        self.model.zero_grad(set_to_none=True)
        with self._products():
            self._loss().backward()

    @torch.no_grad()
    def seeded_loss(self) -> float:
        """Of training mode, with the dropout that all contenders share."""
        torch.manual_seed(1)
        with self._products():
            return float(self._loss())

    def _loss(self) -> torch.Tensor:
        autocast = self.contender.precision == "bf16 autocast"
        with torch.autocast(torch.device(self.case.device).type, torch.bfloat16, enabled=autocast):
            loss: torch.Tensor = self.model(**self.batch).loss
        return loss

    def _products(self) -> AbstractContextManager[object]:
        if self.contender.fast_products:
            return fast_fp32_products(torch.device(self.case.device))
        return nullcontext()


def make_model(case: Case) -> Any:
    """The model of transformers, its weights drawn from a fixed seed."""
    width, heads, inner, vocabularies, block = SIZES[case.size]
    common: dict[str, Any] = {
        "vocab_size": vocabularies[case.model],
        "block_size": block,
        "max_position_embeddings": max(4096, case.length),
    }
    torch.manual_seed(0)
    if case.model == "pegasus":
        config = transformers.BigBirdPegasusConfig(
            d_model=width,
            encoder_layers=case.layers,
            decoder_layers=case.layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=inner,
            decoder_ffn_dim=inner,
            **common,
        )
        return transformers.BigBirdPegasusForConditionalGeneration(config)
    config = transformers.BigBirdConfig(
        hidden_size=width,
        num_hidden_layers=case.layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        **common,
    )
    return transformers.BigBirdForSequenceClassification(config)


def make_batch(case: Case) -> dict[str, torch.Tensor]:
    """Texts without padding, and classes or targets."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = SIZES[case.size][3][case.model]
    ids = torch.randint(5, vocabulary, (case.batch, case.length), generator=generator)
    if case.model == "pegasus":
        labels = torch.randint(5, vocabulary, (case.batch, TARGET_LENGTH), generator=generator)
    else:
        labels = torch.arange(case.batch) % 2
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def _results(cases: list[Case], options: argparse.Namespace) -> list[Result]:
    model = make_model(cases[0])
    runners = [Runner(case, copy.deepcopy(model)) for case in cases]
    losses = _agreed_losses(runners)
    times = _times(runners, options.repeats, options.clock)
    del runners, model  # before other processes need the memory
    release(torch.device(options.device))
    medians = [statistics.median(line) for line in times]
    results = []
    for case, loss, median, all_seconds in zip(cases, losses, medians, times, strict=True):
        peak = None if options.no_memory else _peak_of_own_process(case) / 2**30
        results.append(Result(case, median, all_seconds, medians[0] / median, loss, peak))
        print(
            f"{case.model:<8} {case.length:>6,} {case.contender:<36} {median:>8.3f} "
            f"{medians[0] / median:>6.2f}x {'' if peak is None else f'{peak:.2f}':>6} {loss:.5f}",
            flush=True,
        )
    return results


def _agreed_losses(runners: list[Runner]) -> list[float]:
    """The loss of each; ends the run where they differ."""
    losses = [runner.seeded_loss() for runner in runners]
    for runner, loss in zip(runners, losses, strict=True):
        if not abs(loss - losses[0]) <= AGREEMENT[runner.contender.precision] * abs(losses[0]):
            first = runners[0].case.contender
            sys.exit(f"{runner.case.contender}: loss {loss}, but {first} has {losses[0]}")
    return losses


def _times(runners: list[Runner], repeats: int, clock: str) -> list[list[float]]:
    """Seconds of each step, a list for each contender; the first round does not count."""
    now = CLOCKS[clock]
    times: list[list[float]] = [[] for _ in runners]
    for _ in range(1 + repeats):
        for runner, line in zip(runners, times, strict=True):
            device = torch.device(runner.case.device)
            synchronize(device)
            began = now()
            runner.step()
            synchronize(device)
            line.append(now() - began)
            runner.model.zero_grad(set_to_none=True)
            release(device)
    return [line[1:] for line in times]


def _peak_of_own_process(case: Case) -> int:
    """Bytes, measured in a fresh process, so that no contender counts what another left."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(
        1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    ) as pool:
        return pool.apply(peak_of_two_steps, (case,))


def peak_of_two_steps(case: Case) -> int:
    """Most memory of this process, or of the tensors on its GPU, over two steps."""
    runner = Runner(case, make_model(case))
    runner.step()
    runner.step()
    if case.device != "cpu":
        return peak_bytes(torch.device(case.device))
    # not getrusage, whose peak a new process takes over from the one that started it
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _write(options: argparse.Namespace, facts: dict[str, str], results: list[Result]) -> None:
    content = {
        "benchmark": "fine_tuning",
        "environment": facts,
        "options": {name: value for name, value in vars(options).items() if name != "json"},
        "results": [asdict(result) for result in results],
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
