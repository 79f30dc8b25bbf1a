"""The project's logger: plain lines on stderr, because a SLURM log is a file.

Only rank 0 logs below WARNING (see ``set_rank``).
"""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger("bigbird_ds")
# Until set_rank is called: each launcher's name for the rank.
_RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
rank = int(next(filter(None, map(os.environ.get, _RANK_VARIABLES)), "0"))
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
