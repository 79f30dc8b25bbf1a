"""The project's one logger: plain lines on stderr, because a SLURM log is a file.

Only the rank that ``set_rank`` names 0 speaks below WARNING; the others stay quiet.
"""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger("bigbird_ds")
rank = int(os.environ.get("RANK", "0"))  # this process's place in a run, as far as is known


def setup(level: int = logging.INFO) -> None:
    """Send the logger's lines to stderr as ``HH:MM:SS message``. Safe to call twice."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(level)


def set_rank(number: int) -> None:
    """Quiet every rank but 0, and name the rank in the lines of the others."""
    global rank
    rank = number
    setup()
    if rank:
        logger.setLevel(logging.WARNING)
        formatter = logging.Formatter(f"%(asctime)s [rank {rank}] %(message)s", datefmt="%H:%M:%S")
        for handler in logger.handlers:
            handler.setFormatter(formatter)
