"""Process groups of some of a test's processes, whose ranks share sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from bigbird_ds.attention.parallel import SequenceParallel
from bigbird_ds.training.ranks.distributed import Ranks

Case = TypeVar("Case")
ErrorsOfCases = list[tuple[tuple[int, Case], dict[str, float]]]


def errors_in_groups(
    ranks: Ranks,
    sizes: list[int],
    cases: list[Case],
    errors: Callable[[Case, SequenceParallel], dict[str, float]],
) -> ErrorsOfCases[Case]:
    """``errors`` of each case in a group of the first ranks, for each number of ranks in ``sizes``.

    The other ranks are idle; every rank must call this, since it creates the groups.
    """
    found: ErrorsOfCases[Case] = []
    for size in sizes:
        group = dist.new_group(list(range(size)))
        if ranks.rank < size:
            assert group is not None
            parallel = SequenceParallel.of(group)
            found += [((size, case), errors(case, parallel)) for case in cases]
    return found
