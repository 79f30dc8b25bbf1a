"""The project's logger: plain lines on stderr, because a SLURM log is a file.

Only rank 0 logs below WARNING (see ``set_rank``).
"""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger("bigbird_ds")
rank = int(os.environ.get("RANK", "0"))  # until set_rank is called
_DATE = "%Y-%m-%d %H:%M:%S"  # a run takes days


def setup(level: int = logging.INFO) -> None:
    """Send the logger's lines to stderr as ``YYYY-MM-DD HH:MM:SS message``. Safe to call twice."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", _DATE))
        logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(level)


def set_rank(number: int) -> None:
    """Set the rank. Ranks other than 0 log only warnings and errors, marked with the rank."""
    global rank
    rank = number
    setup()
    if rank:
        logger.setLevel(logging.WARNING)
        formatter = logging.Formatter(f"%(asctime)s [rank {rank}] %(message)s", _DATE)
        for handler in logger.handlers:
            handler.setFormatter(formatter)
