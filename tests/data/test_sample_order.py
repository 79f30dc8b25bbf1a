import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from support.shards import make_vocabulary, random_documents, write_shards

from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.document_index import DocumentIndex
from bigbird_ds.data.sample_order import EpochPlans, SampleOrder
from bigbird_ds.data.shards import Shards
from bigbird_ds.data.windows import Geometry
from bigbird_ds.errors import CheckpointError

PAIRS = Geometry(parts_per_window=2, part_capacity=30, exchanges_second_part=True)
WIDER = Geometry(parts_per_window=2, part_capacity=31, exchanges_second_part=True)


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    documents = random_documents([5, 300, 40, 77, 500])
    return Shards(write_shards(tmp_path / "shards", documents, make_vocabulary()))


def _order(shards: Shards, geometry: Geometry = PAIRS, seed: int = 1) -> SampleOrder:
    return SampleOrder([Corpus(shards)], geometry, seed)


def test_batches_go_on_across_the_ends_of_epochs_and_drop_nothing(shards: Shards) -> None:
    plans = EpochPlans(shards, PAIRS, seed=1)
    lengths = [len(plans.plan(epoch)) for epoch in range(4)]
    order = _order(shards)
    state, taken = order.start(), []
    while state.corpora[0].epoch < 3:
        samples, state = order.take(state, 7)
        taken += samples
    every = [(0, epoch, n) for epoch in range(4) for n in range(lengths[epoch])]
    assert taken == every[: len(taken)]
    assert (0, state.corpora[0].epoch, state.corpora[0].sample) == every[len(taken)]
    assert state.samples_seen == len(taken)


def test_a_batch_may_be_larger_than_an_epoch(shards: Shards) -> None:
    order = _order(shards)
    length = len(order.plans[0].plan(0))
    samples, state = order.take(order.start(), 3 * length)
    assert len(samples) == 3 * length and {epoch for _, epoch, _ in samples} >= {0, 1, 2}
    assert state.corpora[0].epoch >= 2


def test_an_epoch_planned_ahead_is_the_one_planned_on_demand(shards: Shards) -> None:
    ahead, on_demand = (EpochPlans(shards, PAIRS, seed=1) for _ in range(2))
    ahead.plan(0)
    ahead.go_on_to(0)
    one, other = ahead.plan(1), on_demand.plan(1)
    assert len(one) == len(other)
    for n in range(len(one)):
        assert one.window(n).label == other.window(n).label
        for part, same in zip(one.window(n).parts, other.window(n).parts, strict=True):
            assert part.tolist() == same.tolist()


class CountingShards(Shards):
    """Counts how often the index was read: once for every plan."""

    num_plans = 0

    def document_index(self) -> DocumentIndex:
        self.num_plans += 1
        return super().document_index()


def test_every_plan_is_made_once_and_forgotten_when_its_epoch_is_over(shards: Shards) -> None:
    counting = CountingShards(shards.folder)
    order = _order(counting)
    state = order.start()
    while state.corpora[0].epoch < 4:
        order.go_on_to(state)
        samples, state = order.take(state, 7)
        for sample in samples:  # of two epochs where one ends within the batch
            order.resolve(*sample)
    last = weakref.ref(order.plans[0].plan(5))  # waits for the plan in progress
    assert counting.num_plans <= 6
    order.plans[0].go_on_to(6)
    assert last() is None


def test_a_state_survives_json_and_is_taken_by_the_same_run(shards: Shards) -> None:
    order = _order(shards)
    _, state = order.take(order.start(), 9)
    saved = json.loads(json.dumps(state.to_dict()))
    assert list(saved) == ["fingerprint", "seed", "epoch", "sample", "samples_seen"]
    assert _order(shards).resume(saved) == state


def test_a_state_of_another_seed_or_length_or_of_other_shards_is_refused(
    shards: Shards, tmp_path: Path
) -> None:
    saved = _order(shards).start().to_dict()
    folder = write_shards(tmp_path / "other", random_documents([9, 99]), make_vocabulary())
    for order, key in [
        (_order(shards, seed=2), "train.seed"),
        (_order(shards, WIDER), "data.sequence_length"),
        (_order(Shards(folder)), "data.train"),
    ]:
        with pytest.raises(CheckpointError) as error:
            order.resume(saved)
        assert key in error.value.change


@pytest.mark.parametrize("change", [{"sample": -1}, {"epoch": "0"}, {"rank": 1}, {"seed": True}])
def test_a_state_that_is_none_is_refused(shards: Shards, change: dict[str, Any]) -> None:
    order = _order(shards)
    with pytest.raises(CheckpointError, match="data-loader state"):
        order.resume(order.start().to_dict() | change)
