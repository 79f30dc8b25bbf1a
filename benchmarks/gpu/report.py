"""The records that a benchmark leaves: what was measured, or why it was not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from gpu.device import release

SKIPPED = "skipped: no time left"
FAILED = "failed: "


@dataclass(frozen=True)
class Record:
    """One row of the table.

    Attributes:
        section, name, setting: what was measured, of what, at which sizes.
        value, unit: the result; None if there is none, and ``note`` says why.
    """

    section: str
    name: str
    setting: str
    value: float | None
    unit: str
    note: str = ""

    def line(self) -> str:
        value = self.value
        shown = "-" if value is None else f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"
        return f"  {self.name:<34} {self.setting:<30} {shown:>12} {self.unit:<12} {self.note}"


@dataclass
class Report:
    """What a section measures, and its deadline.

    Attributes:
        deadline: a ``time.perf_counter`` value; nothing starts after it.
        keep: called with each record when it is made.
    """

    device: torch.device
    section: str
    deadline: float
    keep: Callable[[Record], None]
    records: list[Record] = field(default_factory=list)

    def has_time(self) -> bool:
        return time.perf_counter() < self.deadline

    def add(
        self, name: str, setting: str, value: float | None, unit: str = "", note: str = ""
    ) -> None:
        self.records.append(Record(self.section, name, setting, value, unit, note))
        self.keep(self.records[-1])

    def attempt(self, name: str, setting: str, work: Callable[[], None]) -> bool:
        """Run ``work``, which adds its records; on failure add the reason.

        Returns:
            Whether it completed.
        """
        if not self.has_time():
            self.add(name, setting, None, note=SKIPPED)
            return False
        try:
            work()
            return True
        except torch.OutOfMemoryError:
            self.add(name, setting, None, note="out of memory")
        except Exception as error:  # a baseline that fails must not end the section
            note = f"{FAILED}{type(error).__name__}: {' '.join(str(error).split())}"
            self.add(name, setting, None, note=note[:300])
        finally:
            release(self.device)
        return False
