import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor
from support.corpus import Corpus as RealCorpus
from support.shards import NUM_SPECIAL, make_vocabulary, random_documents, write_shards

from bigbird_ds.data import worker_loader
from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.loader import EvaluationBatches, TrainingBatches
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import DataError
from bigbird_ds.objectives import Objective, build_objective
from bigbird_ds.objectives.pretraining import MaskingOptions
from bigbird_ds.vocabulary import Vocabulary

Batch = dict[str, torch.Tensor]
LENGTHS = [5, 300, 1, 40, 77, 900, 13, 8, 9, 200]
VOCABULARY = make_vocabulary()


def _objective(name: str = "mlm_nsp") -> Objective:
    return build_objective(name, VOCABULARY, MaskingOptions())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", random_documents(LENGTHS), VOCABULARY)


def _training(folder: Path, name: str = "mlm_nsp", **options: Any) -> TrainingBatches:
    settings = {"seed": 1, "sequence_length": 64, "global_batch": 8, "micro_batch": 2} | options
    return TrainingBatches([Corpus(Shards(folder))], _objective(name), **settings)


def _steps(batches: TrainingBatches, count: int) -> list[tuple[list[Batch], dict[str, Any]]]:
    steps = list(itertools.islice(batches, count))
    batches.close()
    return steps


def _join(batches: Iterator[Batch] | list[Batch]) -> Batch:
    batches = list(batches)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _assert_equal(one: Batch, other: Batch) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def _restored(batch: Batch) -> torch.Tensor:
    """``input_ids`` before masking."""
    ids = batch["input_ids"].clone()
    rows, slots = torch.nonzero(batch["target_ids"] != -100, as_tuple=True)
    ids[rows, batch["target_positions"][rows, slots]] = batch["target_ids"][rows, slots]
    return ids


def test_fields_are_int64_of_the_shapes_that_the_models_take(folder: Path) -> None:
    ((step, _),) = _steps(_training(folder), 1)
    assert len(step) == 4
    shapes = {name: tuple(value.shape) for name, value in step[0].items()}
    assert shapes == {
        "input_ids": (2, 64),
        "token_type_ids": (2, 64),
        "attention_mask": (2, 64),
        "target_positions": (2, 10),
        "target_ids": (2, 10),
        "next_sentence_label": (2,),
    }
    assert {value.dtype for value in step[0].values()} == {torch.int64}


@pytest.mark.parametrize("name", ["mlm_nsp", "mlm"])
def test_an_epoch_holds_every_token_of_the_split_once(folder: Path, name: str) -> None:
    epoch = [
        _join(step)
        for step, _ in itertools.takewhile(
            lambda item: item[1]["epoch"] == 0 or item[1]["sample"] == 0,
            _training(folder, name, global_batch=1, micro_batch=1),
        )
    ]
    ids = _restored(_join(epoch)).numpy()
    found = np.bincount(ids.reshape(-1), minlength=VOCABULARY.size)
    documents = random_documents(LENGTHS)
    expected = np.bincount(np.concatenate([d.ids for d in documents]), minlength=VOCABULARY.size)
    np.testing.assert_array_equal(found[NUM_SPECIAL:], expected[NUM_SPECIAL:])


def test_documents_joined_in_a_part_have_a_separator_between_them(folder: Path) -> None:
    documents = [d.ids.tolist() for d in random_documents(LENGTHS)]
    steps = _steps(_training(folder, "mlm"), 6)
    text = [row.tolist() for step, _ in steps for row in _restored(_join(step))]
    pieces = [
        piece
        for row in text
        for piece in _split([token for token in row[1:] if token], VOCABULARY.sep)
    ]
    assert len(pieces) > len(text)
    for piece in pieces:
        assert any(_contains(document, piece) for document in documents)


def _split(tokens: list[int], separator: int) -> list[list[int]]:
    groups = itertools.groupby(tokens, key=lambda token: token == separator)
    return [list(group) for is_separator, group in groups if not is_separator]


def _contains(document: list[int], piece: list[int]) -> bool:
    return any(document[n : n + len(piece)] == piece for n in range(len(document)))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_bit(folder: Path, workers: int) -> None:
    without, with_workers = (
        _steps(_training(folder), 9),
        _steps(_training(folder, workers=workers), 9),
    )
    assert without[-1][1]["epoch"] > 0
    for (one, state), (other, same_state) in zip(without, with_workers, strict=True):
        assert state == same_state
        _assert_equal(_join(one), _join(other))


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 1), (1, 8), (2, 4), (4, 1)])
def test_a_step_is_the_same_for_any_ranks_and_micro_batches(
    folder: Path, world_size: int, micro_batch: int
) -> None:
    reference = _steps(_training(folder), 9)
    by_rank = [
        _steps(_training(folder, rank=r, world_size=world_size, micro_batch=micro_batch), 9)
        for r in range(world_size)
    ]
    for step, (expected, state) in enumerate(reference):
        assert all(steps[step][1] == state for steps in by_rank)
        _assert_equal(_join([b for steps in by_rank for b in steps[step][0]]), _join(expected))


@pytest.mark.parametrize("done", [1, 3, 6])
def test_a_resumed_loader_continues_where_it_was(folder: Path, done: int) -> None:
    whole = _steps(_training(folder), 10)
    saved = json.loads(json.dumps(_steps(_training(folder), done)[-1][1]))
    rest = _steps(_training(folder, state=saved, micro_batch=4), 10 - done)
    assert whole[done - 1][1]["epoch"] < whole[-1][1]["epoch"]  # an epoch ends in between
    for (expected, state), (step, same_state) in zip(whole[done:], rest, strict=True):
        assert state == same_state
        _assert_equal(_join(step), _join(expected))


def test_the_same_text_is_masked_otherwise_in_every_sample_and_epoch(tmp_path: Path) -> None:
    twins = random_documents([55]) * 2
    folder = write_shards(tmp_path / "twins", twins, VOCABULARY)
    batches = _training(folder, "mlm", global_batch=2, micro_batch=2)
    rows = _join([_join(step) for step, _ in _steps(batches, 3)])  # 3 epochs of 2 windows
    assert len({tuple(row) for row in _restored(rows).tolist()}) == 1
    assert len({tuple(row) for row in rows["target_positions"].tolist()}) == 6


def test_no_global_random_generator_is_touched(folder: Path) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    _steps(_training(folder), 2)
    _steps(_training(folder, workers=1), 2)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def _evaluation(folder: Path, **options: Any) -> EvaluationBatches:
    settings = {"seed": 1, "sequence_length": 64, "micro_batch": 4} | options
    return EvaluationBatches([Corpus(Shards(folder))], _objective(), **settings)


@pytest.mark.parametrize(("world_size", "workers"), [(1, 1), (2, 0), (3, 0)])
def test_an_evaluation_reads_every_window_once_and_fills_up_without_targets(
    folder: Path, world_size: int, workers: int
) -> None:
    ranks = [
        _evaluation(folder, rank=r, world_size=world_size, workers=workers)
        for r in range(world_size)
    ]
    batches = [list(rank) for rank in ranks]
    assert {len(b) for b in batches} == {len(ranks[0])}
    in_order = _join([b for step in zip(*batches, strict=True) for b in step])
    number = ranks[0].num_windows
    assert 0 < number < len(in_order["input_ids"])  # otherwise nothing is padded here
    _assert_equal(
        {name: value[:number] for name, value in in_order.items()},
        _join(_evaluation(folder, micro_batch=1)),
    )
    filled = {name: value[number:] for name, value in in_order.items()}
    assert (filled["target_ids"] == -100).all() and (filled["next_sentence_label"] == -100).all()
    assert (filled["attention_mask"].sum(1) > 0).all()
    for rank in ranks:
        rank.close()


def test_a_capped_evaluation_reads_windows_from_all_over_the_split_as_the_whole_one_does(
    folder: Path,
) -> None:
    whole = _evaluation(folder, micro_batch=1)
    count = 3
    ranks = [
        _evaluation(folder, micro_batch=1, max_windows=count, rank=r, world_size=2) for r in (0, 1)
    ]
    assert [len(rank) for rank in ranks] == [2, 2]
    found = _join([b for step in zip(*ranks, strict=True) for b in step])
    places = [number * whole.num_windows // count for number in range(count)]
    assert whole.num_windows > 2 * count and len(set(places)) == count
    expected = {name: value[places] for name, value in _join(whole).items()}
    _assert_equal({name: value[:count] for name, value in found.items()}, expected)
    assert (found["target_ids"][count:] == -100).all()
    more = _evaluation(folder, max_windows=whole.num_windows + 1)
    assert more.num_windows == whole.num_windows


@pytest.mark.parametrize("workers", [0, 1])
def test_an_evaluation_repeats_itself(folder: Path, workers: int) -> None:
    evaluation = _evaluation(folder, workers=workers)
    first = _join(iter(evaluation))
    _assert_equal(first, _join(iter(evaluation)))
    evaluation.close()
    _assert_equal(first, _join(iter(evaluation)))
    evaluation.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_shard_is_a_user_error_from_any_process(folder: Path, workers: int) -> None:
    batches = _training(folder, workers=workers)
    for tar in folder.glob("*.tar"):
        tar.write_bytes(b"")
    with pytest.raises(DataError, match=r"train-0000.\.tar"):
        next(iter(batches))


def test_the_text_of_real_shards_is_the_text_of_the_documents(corpus: RealCorpus) -> None:
    vocabulary = Vocabulary.from_folder(corpus.tokenizer)
    options = MaskingOptions()
    batches = TrainingBatches(
        [Corpus(Shards(corpus.shards))],
        build_objective("mlm", vocabulary, options),
        seed=1,
        sequence_length=128,
        global_batch=8,
        micro_batch=8,
    )
    ((micro_batches, _),) = _steps(batches, 1)
    processor = SentencePieceProcessor(model_file=str(corpus.tokenizer / "spiece.model"))
    lines = corpus.documents.read_text(encoding="utf-8").splitlines()
    documents = [
        "".join(processor.decode(processor.encode(_one_line(line))).split()) for line in lines
    ]
    for row in _restored(_join(micro_batches)).tolist():
        pieces = _split([token for token in row[1:] if token != vocabulary.pad], vocabulary.sep)
        for piece in pieces:
            text = "".join(processor.decode(piece).split())
            assert any(text in document for document in documents)


def _one_line(line: str) -> str:
    """A document's text as it is encoded: all white space is a single space."""
    return " ".join(json.loads(line)["text"].split())


def test_uneven_pairs_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    documents = random_documents([2000, 20, 20])
    monologue = write_shards(tmp_path / "shards", documents, VOCABULARY)
    with caplog.at_level("WARNING", logger="bigbird_ds"):
        _training(monologue)
    assert "not half" in caplog.text and "one document has most of the text" in caplog.text


def test_another_tokenizer_is_refused_before_the_first_batch(folder: Path) -> None:
    options = MaskingOptions()
    objective = build_objective("mlm", make_vocabulary(999), options)
    with pytest.raises(DataError, match="tokenizer"):
        TrainingBatches(
            [Corpus(Shards(folder))],
            objective,
            seed=1,
            sequence_length=64,
            global_batch=2,
            micro_batch=2,
        )


PROGRAM = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.shards import make_vocabulary
from bigbird_ds.data.corpora import Corpus
from bigbird_ds.data.loader import TrainingBatches
from bigbird_ds.data.shards import Shards
from bigbird_ds.objectives import build_objective
from bigbird_ds.objectives.pretraining import MaskingOptions

options = MaskingOptions()
objective = build_objective("mlm_nsp", make_vocabulary(), options)
batches = TrainingBatches([Corpus(Shards(sys.argv[2]))], objective, seed=1, sequence_length=64,
                          global_batch=2, micro_batch=2, workers=2)
iterator = iter(batches)
next(iterator)
workers = [child.pid for child in multiprocessing.active_children()]
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    for pid in workers:
        os.kill(pid, number)
for _ in range(50):
    next(iterator)
print(*workers, flush=True)
if sys.argv[3] == "raise":
    raise RuntimeError("the end")
if sys.argv[3] == "lose":
    os.kill(workers[0], signal.SIGKILL)
    while True:
        next(iterator)
time.sleep(600)
"""


def _start(folder: Path, then: str) -> subprocess.Popen[str]:
    tests = Path(__file__).resolve().parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tests), str(folder), then],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("then", "error"), [("raise", "the end"), ("lose", "Error")])
def test_workers_survive_signals_and_do_not_hold_up_a_run_that_fails(
    folder: Path, then: str, error: str
) -> None:
    process = _start(folder, then)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and error in err
    _wait_until_gone([int(pid) for pid in out.split()])


def test_workers_end_with_a_parent_that_is_killed(folder: Path) -> None:
    process = _start(folder, "sleep")
    assert process.stdout is not None and process.stderr is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait_until_gone(workers)
    process.stdout.close()
    process.stderr.close()


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that was not reaped yet has exited all the same.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_stopped_worker_is_a_user_error_after_the_timeout_and_is_ended(folder: Path) -> None:
    batches = _training(folder, workers=1, timeout_s=1.0)
    steps = iter(batches)
    next(steps)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(
        DataError, match=rf"do not respond\n.* 1 s from process\(es\) {worker.pid}\n"
    ):
        for _ in steps:
            pass
    worker.join(timeout=30)
    assert worker.exitcode == -signal.SIGKILL


def test_time_in_which_a_scheduler_has_suspended_the_job_is_no_late_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times, worker = [0.0], Mock()
    monkeypatch.setattr(worker_loader, "time", SimpleNamespace(monotonic=lambda: times[0]))
    loader: Any = worker_loader.WorkerLoader(Mock(), [], 1, timeout_s=60.0)
    loader._iterator, loader._waiting_since = SimpleNamespace(_workers=[worker]), 0.0
    looks = [0.0, 3.0, 6.0, *range(506, 569, 3)]  # suspended for 500 s after the third
    for times[0] in looks:
        loader.give_up_late_workers()
    assert not worker.kill.called
    times[0] += 3.0
    loader.give_up_late_workers()
    assert worker.kill.called


def test_a_killed_worker_is_found_at_the_next_batch_and_raises_nowhere_else(folder: Path) -> None:
    steps = iter(_training(folder, workers=1))
    next(steps)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    worker.join(timeout=30)  # SIGCHLD has come, and raised nothing
    with pytest.raises(DataError, match=f"process {worker.pid} was ended by SIGKILL"):
        for _ in steps:
            pass
