"""The data-loader state in a checkpoint: the place of a run in each of its corpora."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bigbird_ds.errors import CheckpointError

_ALONE = {"fingerprint": str, "seed": int, "epoch": int, "sample": int, "samples_seen": int}
_MIXED = {"windows": str, "seed": int, "samples_seen": int, "corpora": list}
_PLACE = {
    "path": str,
    "fingerprint": str,
    "weight": float,
    "epoch": int,
    "sample": int,
    "tokens": int,
    "balance": int,
}


@dataclass(frozen=True)
class Place:
    """How far a run is in a corpus.

    Attributes:
        path: of the shards folder, for messages.
        fingerprint: of the shards.
        weight: as configured; 0: the corpus is no longer read, and its place is kept.
        epoch, sample: the next sample to read; ``sample`` counts within the epoch.
        tokens: document tokens read since the start of the run.
        balance: of these, the tokens read since the weights last changed.
    """

    path: str
    fingerprint: str
    weight: float
    epoch: int = 0
    sample: int = 0
    tokens: int = 0
    balance: int = 0


@dataclass(frozen=True)
class DataState:
    """Data-loader state: everything about the data that a resume needs.

    Attributes:
        windows: the geometry of the windows.
        seed: of the run.
        samples_seen: samples read since the start of the run, of all corpora.
        corpora: those of the run in its order, then those that it no longer reads.
    """

    windows: str
    seed: int
    samples_seen: int
    corpora: tuple[Place, ...]

    @property
    def active(self) -> tuple[Place, ...]:
        """The corpora that the run reads."""
        return tuple(place for place in self.corpora if place.weight)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; one corpus alone has a shorter form."""
        if len(self.corpora) == 1:
            (place,) = self.corpora
            return {
                "fingerprint": f"{place.fingerprint}/{self.windows}",
                "seed": self.seed,
                "epoch": place.epoch,
                "sample": place.sample,
                "samples_seen": self.samples_seen,
            }
        return asdict(self) | {"corpora": [asdict(place) for place in self.corpora]}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> DataState:
        """Read what ``to_dict`` wrote. ``tokens`` of the shorter form is 0: it can be counted.

        Raises:
            CheckpointError: a field is missing, unknown, negative or of another type.
        """
        if "corpora" not in value:
            _check(value, _ALONE)
            shards, _, windows = value["fingerprint"].rpartition("/")
            place = Place("", shards, 1.0, value["epoch"], value["sample"])
            return cls(windows, value["seed"], value["samples_seen"], (place,))
        _check(value, _MIXED)
        for place in value["corpora"]:
            _check(place, _PLACE)
        places = tuple(Place(**place) for place in value["corpora"])
        return cls(**value | {"corpora": places})


def _check(value: Any, kinds: dict[str, type]) -> None:
    sound = (
        isinstance(value, dict)
        and value.keys() == kinds.keys()
        and all(
            type(value[name]) is kind and (kind in (str, list) or 0 <= value[name] < float("inf"))
            for name, kind in kinds.items()
        )
    )
    if not sound:
        raise CheckpointError(
            "the checkpoint's data-loader state is invalid",
            seen=value,
            needed=f"the fields {', '.join(kinds)}",
            change="resume from another checkpoint",
        )
