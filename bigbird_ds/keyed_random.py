"""Random numbers that depend only on a key: (seed, stream, epoch, sample).

The data (order, masks, pairs), the ``uniform`` attention pattern and the seeds of dropout are drawn
from here. A resume therefore draws the same numbers, and only dropout depends on the number of
ranks. This module uses no global generator. Philox is a counter-based generator: the key selects
the stream, the counter the position in it (Salmon et al., SC 2011).
"""

from __future__ import annotations

import zlib

import numpy as np

_WORD = 1 << 64


def keyed_generator(seed: int, stream: str, epoch: int = 0, sample: int = 0) -> np.random.Generator:
    """The generator for ``(seed, stream, epoch, sample)``.

    Args:
        seed: the run's seed, an integer >= 0; used modulo 2**64.
        stream: what is drawn, e.g. ``"masks"``; names with different CRC-32 have separate streams.
        epoch, sample: integers >= 0. Each sample has at least 2**128 draws.
    """
    assert seed >= 0 and epoch >= 0 and sample >= 0
    key = np.array([seed % _WORD, zlib.crc32(stream.encode())], dtype=np.uint64)
    counter = np.array([0, 0, sample % _WORD, epoch % _WORD], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
