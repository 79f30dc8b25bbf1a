"""Whether a run that faults happened to equals one that was not disturbed."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from soak.lives import Place, read_lines

RELATIVE = 1e-5  # of losses, on another layout than that of the undisturbed run


def differences(found: Place, whole: Place, is_exact: bool) -> list[str]:
    """What differs; empty if nothing does.

    Args:
        is_exact: bits are compared; else floating-point numbers up to rounding.
    """
    return [
        *_of_metrics(found, whole, is_exact),
        *_of_samples(found, whole),
        *_of_tensors(found, whole, is_exact),
    ]


def _of_metrics(found: Place, whole: Place, is_exact: bool) -> list[str]:
    said = []
    for value in ("loss", "eval_loss"):
        ours, theirs = _values(found.run, value), _values(whole.run, value)
        steps = [step for step, _, _ in ours]
        if doubled := [step for step, count in Counter(steps).items() if count > 1]:
            said.append(f"{value} has several lines of steps {doubled}")
        expected = {step: (tokens, number) for step, tokens, number in theirs}
        missing = set(expected) - set(steps) - found.may_lack
        if missing or set(steps) - set(expected):
            said.append(f"{value} has steps {steps}, without {sorted(missing)}")
            continue
        for step, tokens, number in ours:
            should = expected[step][1]
            is_equal = (
                number == should if is_exact else math.isclose(number, should, rel_tol=RELATIVE)
            )
            if not is_equal or tokens != expected[step][0]:
                said.append(
                    f"step {step}: {value} {number!r}, tokens {tokens}; undisturbed: {should!r}, "
                    f"{expected[step][0]}"
                )
                break
    return said


def _values(run: Path, name: str) -> list[tuple[int, Any, float]]:
    lines = read_lines(run / "metrics.jsonl")
    return [(line["step"], line.get("tokens"), line[name]) for line in lines if name in line]


def samples_of(place: Place) -> dict[int, Counter[str]]:
    """The sequences of each step, over all ranks of the last life that did this step."""
    found: dict[int, Counter[str]] = {}
    done_in: dict[int, int] = {}
    files = [(int(path.stem.split("-")[0]), path) for path in (place.notes / "samples").iterdir()]
    for life, path in sorted(files):
        for line in read_lines(path):
            step = line["step"]
            if done_in.get(step) != life:
                done_in[step], found[step] = life, Counter()
            found[step].update(line["samples"])
    return found


def _of_samples(found: Place, whole: Place) -> list[str]:
    ours, theirs = samples_of(found), samples_of(whole)
    steps = sorted(set(ours) | set(theirs))
    differ = [step for step in steps if ours.get(step) != theirs.get(step)]
    return [f"other sequences in steps {differ}"] if differ else []


def _of_tensors(found: Place, whole: Place, is_exact: bool) -> list[str]:
    ours, theirs = _last_tensors(found), _last_tensors(whole)
    if set(ours) != set(theirs):
        return [f"the last checkpoint has other tensors: {sorted(set(ours) ^ set(theirs))}"]
    differ = []
    for name, tensor in theirs.items():
        is_equal = (
            torch.equal(ours[name], tensor)
            if is_exact
            else torch.allclose(ours[name], tensor, rtol=1e-3, atol=1e-5)
        )
        if not is_equal:
            differ.append(f"{name} by {float((ours[name] - tensor).abs().max()):.1e}")
    return [f"{len(differ)} tensors of the last checkpoint, {differ[0]}"] if differ else []


def _last_tensors(place: Place) -> dict[str, torch.Tensor]:
    folder = place.run / "checkpoints" / f"step-{place.checkpoints()[-1]}"
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors
