"""Which corpora a resumed run reads, and from where: they may join, leave and change weight."""

from __future__ import annotations

from dataclasses import replace

from bigbird_ds.data.corpora import shares_of
from bigbird_ds.data.data_state import DataState, Place
from bigbird_ds.errors import CheckpointError
from bigbird_ds.log import logger


def check_same_run(saved: DataState, start: DataState) -> None:
    """Check that a saved run can go on with the corpora of another.

    Args:
        saved: its state.
        start: the state at the start of a run with the new corpora.

    Raises:
        CheckpointError: the run had other shards, other windows or another seed.
    """
    present = {place.fingerprint for place in start.corpora}
    gone = [place for place in saved.active if place.fingerprint not in present]
    changed = {place.path for place in gone} & {place.path for place in start.corpora}
    if len(gone) == len(saved.active) or changed:
        raise _cannot_resume(
            "the checkpoint was trained on different shards",
            ", ".join(_shards(place) for place in start.corpora),
            ", ".join(_shards(place) for place in saved.active),
            "data.train and data.tokenizer (new documents: shards in another folder)",
        )
    if saved.windows != start.windows:
        raise _cannot_resume(
            "the checkpoint was trained on windows of a different length or kind",
            f"windows {start.windows} (version, parts x tokens per part)",
            f"windows {saved.windows}",
            "data.sequence_length and objective.name, or continue_from for another length",
        )
    if saved.seed != start.seed:
        raise _cannot_resume(
            "the checkpoint was trained with a different seed, so its sample order differs",
            f"train.seed={start.seed}",
            f"train.seed={saved.seed}",
            "train.seed",
        )


def resumed_places(saved: DataState, start: DataState) -> tuple[Place, ...]:
    """The places from which a run goes on: the corpora of ``start``, then those no longer read.

    If any share changes, the shares count from here. Logs what changes.
    """
    known = {place.fingerprint: place for place in saved.corpora}
    places = [
        replace(known.get(new.fingerprint, new), path=new.path, weight=new.weight)
        for new in start.corpora
    ]
    present = {place.fingerprint for place in places}
    left = [place for place in saved.corpora if place.fingerprint not in present]
    before, after = _shares(saved.active), _shares(places)
    if before == after:
        return (*places, *left)
    for place in places:
        was, share = before.get(place.fingerprint), after[place.fingerprint]
        if was is None:
            logger.info(
                "resume: %s joins at %s, with %.4g %% of the tokens",
                place.path,
                _where(place),
                100 * share,
            )
        elif was != share:
            logger.info(
                "resume: %s had %.4g %% of the tokens, now has %.4g %%, and goes on at %s",
                place.path,
                100 * was,
                100 * share,
                _where(place),
            )
    for place in left:
        if place.weight:
            logger.info(
                "resume: %s is no longer read; its place is kept: %s", place.path, _where(place)
            )
    return (
        *(replace(place, balance=0) for place in places),
        *(replace(place, weight=0.0, balance=0) for place in left),
    )


def _shares(places: tuple[Place, ...] | list[Place]) -> dict[str, float]:
    shares = shares_of([place.weight for place in places])
    names = [place.fingerprint for place in places]
    return dict(zip(names, map(float, shares), strict=True))


def _where(place: Place) -> str:
    return f"sample {place.sample:,} of epoch {place.epoch}"


def _shards(place: Place) -> str:
    where = f" ({place.path})" if place.path else ""
    return f"shards {place.fingerprint[:16]}...{where}"


def _cannot_resume(problem: str, seen: str, needed: str, keys: str) -> CheckpointError:
    return CheckpointError(
        problem,
        seen=seen,
        needed=f"{needed}, as in the checkpoint",
        change=f"{keys}; or start a new run from these weights: set `model` and a new `output`",
    )
