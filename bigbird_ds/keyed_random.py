"""Random numbers as functions of a key: (seed, stream, epoch, sample), never of who draws them.

Every draw that shapes a run (order, masks, partners) comes from here, so that it does not depend on
ranks, workers or a resume, and no global generator is touched. Philox is a counter-based generator:
the key picks the stream, the counter the place in it (Salmon et al., SC 2011).
"""

from __future__ import annotations

import zlib

import numpy as np

_WORD = 1 << 64


def keyed_generator(seed: int, stream: str, epoch: int = 0, sample: int = 0) -> np.random.Generator:
    """A generator of its own for ``(seed, stream, epoch, sample)``.

    Args:
        seed: the run's seed, any integer >= 0.
        stream: what is drawn, e.g. ``"order"`` or ``"mask"``; different names never share numbers.
        epoch, sample: integers >= 0. Each sample has 2**128 draws of its own.
    """
    assert seed >= 0 and epoch >= 0 and sample >= 0
    key = np.array([seed % _WORD, zlib.crc32(stream.encode())], dtype=np.uint64)
    counter = np.array([0, 0, sample % _WORD, epoch % _WORD], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
