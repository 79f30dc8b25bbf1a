"""Rounds of a soak: a run, faults at random moments until it is done, and a comparison."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from soak.faults import CHANGE_LAYOUT, FAULTS, Fault
from soak.lives import Layout, Life, NotSurvivedError, Place

SAVE_EVERY = 10


@dataclass
class Struck:
    """A fault that happened.

    Attributes:
        notice_s: seconds until the run ended or named the fault; None: at the next start.
        last_step: the last step that was done before; None if the life had none.
        lost: steps that the next life did again; None as long as it is not known.
        next_says: what the next life has to say.
    """

    kind: str
    notice_s: float | None
    last_step: int | None
    next_says: str = ""
    lost: int | None = None

    def check(self, life: Life, resumed: int) -> None:
        """Note what was lost, of the life that goes on.

        Raises:
            NotSurvivedError: too much was, or the life does not say what it should.
        """
        self.lost = 0 if self.last_step is None else max(0, self.last_step - resumed)
        saves = FAULTS[self.kind].saves_lost
        if self.lost > (saves + 1) * SAVE_EVERY * (saves > 0):
            raise NotSurvivedError(f"{self.lost} steps were lost (resumed after step {resumed})")
        if self.next_says not in life.said():
            raise NotSurvivedError(f"the next start does not say {self.next_says!r}")


class Round:
    """A run that faults happen to until it is done.

    Args:
        kinds: the names of the faults to choose from.
        most_steps: of a life until its next fault.
        tried: how often each kind was tried; those least tried come first.
        goes_on: whether there are to be more faults.
        report: called with a line for each fault.
    """

    def __init__(
        self,
        place: Place,
        kinds: Sequence[str],
        most_steps: int,
        tried: Counter[str],
        goes_on: Callable[[], bool],
        report: Callable[[str], None],
    ) -> None:
        self.place, self.kinds, self.most_steps = place, kinds, most_steps
        self.tried = tried
        self.goes_on, self.report = goes_on, report
        self.struck: list[Struck] = []
        self.lives = 0
        self.changes_layout = False
        self.current = ""  # the fault that is tried

    def run(self, changes_layout: bool) -> None:
        """Run to the end.

        Raises:
            NotSurvivedError: a fault was not survived; its kind is ``current``.
        """
        self.changes_layout = changes_layout
        kind = self._choose(None)
        life = self._start(kind)
        try:
            while True:
                if kind is None or not self._reach(life, FAULTS[kind]):
                    life.wait_until_training()
                    self._settle(life)
                    life.ends(0)
                    return
                if not self._is_possible(kind, life):
                    kind = self._choose(life)
                    continue
                self._strike(kind, life)
                if life.is_done:
                    return
                was_alive = not life.has_ended
                kind = self._choose(life if was_alive else None)
                if not was_alive:
                    life = self._start(kind)
        finally:
            life.kill()

    def _reach(self, life: Life, fault: Fault) -> bool:
        """Let the life come to the moment of its fault; False if it has ended before."""
        if fault.at_start:
            return True
        life.wait_until_training()
        self._settle(life)
        steps = self.place.random.randint(1, self.most_steps)
        life.wait_for_step(self.place.last_step() + steps)
        return not life.has_ended

    def _settle(self, life: Life) -> None:
        """Judge the faults before this life, from where it goes on."""
        resumed = life.resumed_from()
        open_ones = [struck for struck in self.struck if struck.lost is None]
        if resumed is None or not open_ones:
            return
        for struck in open_ones:
            self.current = struck.kind
            struck.check(life, resumed)

    def _strike(self, kind: str, life: Life) -> None:
        self.current = kind
        self.tried[kind] += 1
        fault = FAULTS[kind]
        step = self.place.last_step()
        try:
            notice_s = fault.strike(life)
        except NotSurvivedError:
            if not life.is_done:
                raise
            self.tried[kind] -= 1  # the run was faster
            return
        last = None if fault.at_start else self.place.last_step()
        struck = Struck(kind, notice_s, last, life.next_says)
        if not life.has_ended or life.is_done:  # no later life shows what was lost
            struck.lost = 0
        self.struck.append(struck)
        seen = "at the next start" if notice_s is None else f"{notice_s:.1f} s"
        self.report(f"life {self.lives}, {life.layout}, step {step}: {kind} ({seen})")

    def _start(self, kind: str | None) -> Life:
        self.lives += 1
        self.current = "start"
        choose = self.place.random.choice
        fault = FAULTS[kind] if kind else FAULTS[CHANGE_LAYOUT]
        ranks, stage = 2, 1
        if self.changes_layout:
            ranks = fault.ranks or choose((1, 2))
            stage = choose((0, 1, 2, 3))
        workers = choose((0, 1)) if fault.workers is None else fault.workers
        return Life(self.place, Layout(ranks, stage, workers, choose(fault.launchers)), self.lives)

    def _choose(self, life: Life | None) -> str | None:
        """The next kind; None: the run goes on to its end."""
        if not self.goes_on():
            return None
        possible = [kind for kind in self.kinds if self._fits(kind, life)]
        if not possible:
            return None
        fewest = min(self.tried[kind] for kind in possible)
        return self.place.random.choice([k for k in possible if self.tried[k] == fewest])

    def _fits(self, kind: str, life: Life | None) -> bool:
        fault = FAULTS[kind]
        if (kind == CHANGE_LAYOUT) and not self.changes_layout:
            return False
        if life is None:
            return True
        layout = life.layout
        return (
            not fault.at_start
            and layout.launcher in fault.launchers
            and fault.workers in (None, layout.workers)
            and fault.ranks in (None, layout.ranks)
            and self._is_possible(kind, life)
        )

    def _is_possible(self, kind: str, life: Life) -> bool:
        return len(self.place.checkpoints()) >= FAULTS[kind].needs_checkpoints


def summary(struck: Sequence[Struck], tried: Counter[str]) -> list[dict[str, Any]]:
    """Of each kind that was tried: how often, survived, seconds to notice, steps lost."""
    rows = []
    for kind in FAULTS:
        if not tried[kind]:
            continue
        mine = [each for each in struck if each.kind == kind and each.lost is not None]
        seconds = sorted(each.notice_s for each in mine if each.notice_s is not None)
        lost = sorted(each.lost or 0 for each in mine)
        rows.append(
            {
                "fault": kind,
                "tried": tried[kind],
                "survived": len(mine),
                "notice_s": [round(seconds[len(seconds) // 2], 2), round(seconds[-1], 2)]
                if seconds
                else None,
                "steps_lost": [lost[len(lost) // 2], lost[-1]] if lost else None,
            }
        )
    return rows


def timer(minutes: float) -> Callable[[], bool]:
    """Whether less than this time has passed since the call."""
    end = time.monotonic() + 60 * minutes
    return lambda: time.monotonic() < end
