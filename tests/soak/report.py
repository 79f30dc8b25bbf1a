"""The result of a soak as JSON and as a table of a Markdown page."""

from __future__ import annotations

import datetime
import os
import platform
import textwrap
from importlib import metadata
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
PACKAGES = ("torch", "deepspeed")


def describe(result: dict[str, Any], minutes: float) -> dict[str, Any]:
    """The result with the machine, the versions and the date."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": _machine(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "minutes": minutes,
        **result,
    }


def _machine() -> str:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} cores of {model}, load {os.getloadavg()[0]:.0f} at the end"


def table(content: dict[str, Any]) -> str:
    """The table, with a line above it that says where it comes from."""
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    tried = sum(row["tried"] for row in content["faults"])
    verdict = content["failure"] or "all survived, and each run equal to the undisturbed one"
    origin = (
        f"{content['date']}, seed {content['seed']}, {content['minutes']:g} minutes, "
        f"{content['machine']}, {versions}: runs of {content['steps']} steps: {content['rounds']}, "
        f"lives: {content['lives']}, faults: {tried}; {verdict}."
    )
    lines = [
        *textwrap.wrap(origin, 118),
        "",
        "| fault | tried | survived | seconds to notice: median, most | steps lost: median, most |",
        "|---|---|---|---|---|",
    ]
    for row in content["faults"]:
        seconds = row["notice_s"]
        noticed = f"{seconds[0]:.1f}, {seconds[1]:.1f}" if seconds else "at the next start"
        lost = f"{row['steps_lost'][0]}, {row['steps_lost'][1]}" if row["steps_lost"] else ""
        cells = (row["fault"], row["tried"], row["survived"], noticed, lost)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def write_table(page: Path, content: dict[str, Any]) -> None:
    """Replace what is between the two marks of the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table(content)}\n{END}{after}", encoding="utf-8")
