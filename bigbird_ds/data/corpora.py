"""The corpora of a run: shards folders with weights, and the corpus from which each sample comes.

Weights are shares of document tokens. The choice is WF2Q, the packet scheduler of Bennett and Zhang
(INFOCOM 1996), with windows for packets: among the corpora that are not ahead of their share, the
one whose next window would be finished first if all were read at once. So after every sample, the
tokens of each corpus are within one window of its share of all tokens, whatever the lengths.
Integers and fractions are exact, so the choice is the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePath

from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import DataError


@dataclass(frozen=True, eq=False)
class Corpus:
    """A split of a shards folder with its share of a run.

    Attributes:
        shards: the split.
        weight: > 0, relative to those of the other corpora.
        name: in the log and in metrics; unique in a run.
    """

    shards: Shards
    weight: float = 1.0
    name: str = ""


def shares_of(weights: Sequence[float]) -> list[Fraction]:
    """The weights as written in decimal, divided by their sum."""
    exact = [Fraction(str(weight)) for weight in weights]
    return [weight / sum(exact) for weight in exact]


class Choice:
    """Chooses the corpus of each sample.

    Args:
        shares: of the corpora; their sum is 1.
    """

    def __init__(self, shares: Sequence[Fraction]) -> None:
        # The shares as integers / `_whole`, and the tokens that count as one unit of work.
        self._whole = math.lcm(*(share.denominator for share in shares))
        self._shares = [int(share * self._whole) for share in shares]
        common = math.lcm(*self._shares)
        self._work = [common // share for share in self._shares]

    def next(self, tokens: Sequence[int], sizes: Sequence[int]) -> int:
        """The corpus of the next sample; of equal ones the first.

        Args:
            tokens: read of each corpus so far.
            sizes: tokens in the next window of each corpus.
        """
        total = sum(tokens)
        finish = [
            ((done + size) * work, number)
            for number, (done, size, work, share) in enumerate(
                zip(tokens, sizes, self._work, self._shares, strict=True)
            )
            if done * self._whole <= share * total
        ]
        return min(finish)[1]


def short_names(paths: Sequence[str]) -> list[str]:
    """Short names for folders: the last part of the paths in which all of them differ."""
    parts = [PurePath(path).parts for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        ends = [own[-min(depth, len(own))] for own in parts]
        if len(set(ends)) == len(ends):
            return ends
    return list(paths)


def check_distinct(corpora: Sequence[Corpus]) -> None:
    """Check that no corpus is there twice, under whatever path.

    Raises:
        DataError: two folders have the same shards.
    """
    known: dict[str, Corpus] = {}
    for corpus in corpora:
        other = known.setdefault(corpus.shards.fingerprint, corpus)
        if other is not corpus:
            raise DataError(
                "two corpora have the same shards",
                seen=f"{other.shards.folder} and {corpus.shards.folder}, with equal files in the "
                f"{corpus.shards.split} split",
                needed="each corpus once, with its whole weight",
                change=f"data.{corpus.shards.split}",
            )
