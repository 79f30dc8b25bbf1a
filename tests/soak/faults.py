"""The kinds of faults: each happens to a life in its training, or at its start."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.faults import children_of

from bigbird_ds.errors import EXIT_FAILED, EXIT_HUNG, EXIT_REQUEUE, EXIT_USER_ERROR
from bigbird_ds.hub.checkpoints import MANIFEST_NAME, step_folder
from bigbird_ds.stop_signals import STOP_SIGNALS
from soak.lives import Life, NotSurvivedError

KILLED = (-signal.SIGKILL, 256 - signal.SIGKILL)  # of Popen; of the deepspeed launcher
LAUNCHERS = ("slurm", "deepspeed", "torchrun")
_ROOM_LEFT = 200_000  # bytes, less than a checkpoint
HANG_TIMEOUT_S = 20


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        strike: makes the fault, and waits until the run has done what it should; returns the
            seconds from the fault to the end of the last process, or to the run's line about it.
            None: it is noticed at the next start.
        saves_lost: how many saves may lie between the last step done and the one that the next
            life resumes from; 0: the run saves first.
        launchers, workers, ranks: of the lives that it can happen to; None: any.
        at_start: it happens before the first step of the life.
    """

    strike: Callable[[Life], float | None]
    saves_lost: int = 0
    launchers: tuple[str, ...] = ("slurm",)
    workers: int | None = None
    ranks: int | None = None
    at_start: bool = False
    needs_checkpoints: int = 0
    needs_small_disk: bool = False


def _any_rank(life: Life) -> int:
    return life.pid(life.place.random.randrange(life.layout.ranks))


def _signal_rank(life: Life) -> float:
    number = life.place.random.choice(STOP_SIGNALS)
    os.kill(_any_rank(life), number)
    return life.ends(EXIT_REQUEUE)


def _signal_at_start(life: Life) -> float:
    pid = _any_rank(life)
    time.sleep(life.place.random.uniform(0.1, 4))
    os.kill(pid, life.place.random.choice(STOP_SIGNALS))
    return life.ends(EXIT_REQUEUE)


def _stop_file(life: Life) -> float:
    (life.place.run / "STOP").touch()
    return life.ends(EXIT_REQUEUE)


def _save_file(life: Life) -> float:
    file = life.place.run / "SAVE"
    steps = set(life.place.checkpoints())
    file.touch()
    life.wait(lambda: not file.exists(), "the file SAVE was seen")
    return life.wait(lambda: set(life.place.checkpoints()) - steps, "a save on request")


def _kill_launcher(life: Life) -> float:
    began = time.monotonic()
    life.processes[0].kill()
    life.processes[0].wait()
    life.wait_until_gone()
    return time.monotonic() - began


def _kill_rank(life: Life) -> float:
    os.kill(_any_rank(life), signal.SIGKILL)
    return life.ends(EXIT_FAILED, *KILLED)


def _kill_all(life: Life) -> None:
    life.kill()


def _kill_at_start(life: Life) -> None:
    life.pid(0)
    time.sleep(life.place.random.uniform(0, 6))
    life.kill()


def _kill_in_save(life: Life) -> None:
    folder = life.place.run / "checkpoints"

    def is_saving() -> bool:
        return life.has_ended or any(folder.glob(".step-*.tmp"))

    deadline = time.monotonic() + 60
    while not is_saving() and time.monotonic() < deadline:
        time.sleep(0.0005)
    life.kill()


def _kill_worker(life: Life) -> float:
    worker = children_of(_any_rank(life))[0]  # an evaluation has another one
    os.kill(worker, signal.SIGKILL)
    return life.ends(EXIT_USER_ERROR)


def _stop_rank(life: Life) -> float:
    stopped = life.place.random.randrange(2)
    os.kill(life.pid(stopped), signal.SIGSTOP)
    began = time.monotonic()
    try:
        code = life.processes[1 - stopped].wait(timeout=20 * HANG_TIMEOUT_S)
    finally:
        os.kill(life.pid(stopped), signal.SIGKILL)
    seconds = time.monotonic() - began
    life.processes[stopped].wait()
    if code != EXIT_HUNG or f"rank {stopped} on " not in life.said():
        raise NotSurvivedError(f"exit code {code}, rank {stopped} is not named")
    return seconds


def _read_fails_once(life: Life) -> float:
    file = life.place.notes / "read-fails-once"
    file.touch()
    life.wait(lambda: not file.exists(), "a read of a shard")
    return life.wait_for("read again in 0.1 s")


def _reads_fail(life: Life) -> float:
    file = life.place.notes / "reads-fail"
    file.touch()
    try:
        return life.ends(EXIT_USER_ERROR)
    finally:
        file.unlink()


def _fill_disk(life: Life) -> float:
    """Fill the disk of the run folder, and also what the run frees, until a save has failed."""
    ballast, said = life.place.run.parent / "ballast", life.said()
    began, step = time.monotonic(), life.place.last_step()
    try:
        with ballast.open("wb", buffering=0) as stream:

            def is_noticed() -> bool:
                free = shutil.disk_usage(ballast.parent).free
                if free > _ROOM_LEFT:
                    with contextlib.suppress(OSError):
                        stream.write(bytes(free - _ROOM_LEFT))
                return "the run continues" in life.said()[len(said) :]

            life.wait(is_noticed, "a save that failed")
            seconds = time.monotonic() - began
    finally:
        ballast.unlink()
    newest = life.place.checkpoints()[-1:]
    life.wait_for_step(life.place.last_step() + 1)
    life.place.may_lack.update(range(step, life.place.last_step() + 1))
    life.wait(lambda: life.place.checkpoints()[-1:] > newest, "a save with room again")
    return seconds


def _second_run(life: Life) -> float:
    return _refused(life, "another run writes to this run folder")


def _refused(life: Life, reason: str) -> float:
    """Start the run once more, which must end with a user error; the seconds that took."""
    second = Life(life.place, life.layout, life.number + 1000)
    try:
        seconds = second.ends(EXIT_USER_ERROR)
        if reason not in second.said():
            raise NotSurvivedError(f"the error does not say: {reason}")
    finally:
        second.kill()
    return seconds


def _newest(life: Life) -> Path:
    life.kill()
    return step_folder(life.place.run, life.place.checkpoints()[-1])


def _some_file(life: Life) -> Path:
    path = life.place.random.choice(sorted(_newest(life).iterdir()))
    # A space of the manifest may change without effect; the tensors are compared at the end.
    life.next_says = "" if path.name == MANIFEST_NAME else "skipped "
    return path


def _flip_bit(life: Life) -> None:
    path = _some_file(life)
    content = bytearray(path.read_bytes())
    content[life.place.random.randrange(len(content))] ^= 1 << life.place.random.randrange(8)
    path.write_bytes(content)


def _truncate(life: Life) -> None:
    path = _some_file(life)
    os.truncate(path, life.place.random.randrange(path.stat().st_size))


def _delete_file(life: Life) -> None:
    _some_file(life).unlink()


def _delete_checkpoint(life: Life) -> None:
    shutil.rmtree(_newest(life))


def _hide_checkpoints(life: Life) -> float:
    """``checkpoints/`` is away for one start."""
    life.kill()
    folder = life.place.run / "checkpoints"
    hidden = folder.rename(folder.with_name("away"))
    try:
        return _refused(life, "the checkpoints of this run are missing")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        hidden.rename(folder)


def _cut_metrics(life: Life) -> None:
    life.kill()
    with (life.place.run / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"step": 7, "loss": 3.1')


CHANGE_LAYOUT = "other ranks or ZeRO stage after a stop"
FAULTS = {
    "stop signal to one rank": Fault(_signal_rank, launchers=LAUNCHERS),
    "stop signal during the start": Fault(_signal_at_start, at_start=True),
    "file `STOP`": Fault(_stop_file, launchers=LAUNCHERS),
    "file `SAVE`": Fault(_save_file, launchers=LAUNCHERS),
    "launcher killed": Fault(_kill_launcher, launchers=LAUNCHERS[1:]),
    "one rank killed": Fault(_kill_rank, 1, launchers=LAUNCHERS[:2]),
    "all ranks killed": Fault(_kill_all, 1, launchers=LAUNCHERS),
    "all ranks killed during the start": Fault(_kill_at_start, 1, at_start=True),
    "all ranks killed in a save": Fault(_kill_in_save, 1),
    "data worker killed": Fault(_kill_worker, workers=1),
    "one rank stopped for ever": Fault(_stop_rank, 1, ranks=2),
    "a read of a shard fails once": Fault(_read_fails_once, launchers=LAUNCHERS, workers=0),
    "all reads of shards fail": Fault(_reads_fail, workers=0),
    "disk full at a save": Fault(_fill_disk, needs_checkpoints=1, needs_small_disk=True),
    "second run in the folder": Fault(_second_run),
    "bit of the last checkpoint flipped": Fault(_flip_bit, 2, needs_checkpoints=2),
    "file of the last checkpoint truncated": Fault(_truncate, 2, needs_checkpoints=2),
    "file of the last checkpoint deleted": Fault(_delete_file, 2, needs_checkpoints=2),
    "last checkpoint deleted": Fault(_delete_checkpoint, 2, needs_checkpoints=2),
    "`checkpoints/` missing at a start": Fault(_hide_checkpoints, 1, needs_checkpoints=1),
    "half a line at the end of `metrics.jsonl`": Fault(_cut_metrics, 1),
    CHANGE_LAYOUT: Fault(_stop_file),
}
