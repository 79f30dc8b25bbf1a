"""A rank of a soak run: ``launch/pretrain.py``, which notes what it does and obeys files.

In the folder of the environment variable SOAK_NOTES::

    pids/LIFE-RANK              the process id
    samples/LIFE-RANK.jsonl     a line a step: the step, and a digest of each sequence trained on
    read-fails-once             the next read of a shard fails with EIO and removes the file
    reads-fail                  every read of a shard does, while the file exists
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

NOTES = Path(os.environ["SOAK_NOTES"])
ONCE, FOR_GOOD = NOTES / "read-fails-once", NOTES / "reads-fail"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

_pread = os.pread


def pread(*arguments: Any) -> bytes:
    if FOR_GOOD.exists():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    try:
        ONCE.unlink()
    except FileNotFoundError:
        return _pread(*arguments)
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def note_samples(number: str) -> None:
    """Note the sequences of each step that counts as done."""
    from bigbird_ds.training import loop

    state_after = loop.state_after
    stream = (NOTES / "samples" / f"{number}.jsonl").open("ab", buffering=0)

    def noting(run: Any, fetched: Any, *others: Any) -> Any:
        state = state_after(run, fetched, *others)
        digests = [
            hashlib.sha256(row[is_token.bool()].numpy().tobytes()).hexdigest()[:16]
            for batch in fetched.micro_batches
            for row, is_token in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        stream.write((json.dumps({"step": state.step, "samples": digests}) + "\n").encode())
        return state

    loop.state_after = noting


def main() -> int:
    from launch import pretrain

    os.pread = pread
    set_rank_variables = pretrain.set_rank_variables

    def note_start(local_rank: int | None = None) -> None:
        set_rank_variables(local_rank)
        name = f"{os.environ['SOAK_LIFE']}-{os.environ['RANK']}"
        (NOTES / "pids" / name).write_text(str(os.getpid()))

    pretrain.set_rank_variables = note_start
    # ``loop`` may only be imported once the process group is there: DeepSpeed reads its variables.
    from bigbird_ds.training.ranks import distributed

    joined = distributed.start

    def join(*arguments: Any) -> Any:
        ranks = joined(*arguments)
        note_samples(f"{os.environ['SOAK_LIFE']}-{ranks.rank}")
        return ranks

    distributed.start = join
    return pretrain.main()


if __name__ == "__main__":
    sys.exit(main())
