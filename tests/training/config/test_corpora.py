"""``data.train`` as a list of corpora: what is refused before any shards are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import changed

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.corpora import CorpusConfig
from bigbird_ds.training.config.file import check_run_config, dump_run_config, load_run_config

SETTINGS: dict[str, Any] = {
    "model": {},
    "data": {"train": "shards", "tokenizer": "tokenizer", "sequence_length": 128},
    "batch": {"sequences": 1, "micro": 1},
    "schedule": {"warmup_steps": 0},
    "train": {"steps": 9},
    "output": "run",
}
A, B = {"path": "work/a", "weight": 0.7}, {"path": "work/b", "weight": 1}


@pytest.mark.parametrize("key", ["data.train", "data.validation"])
@pytest.mark.parametrize(
    ("corpora", "words"),
    [
        ([], ["empty", "=[]"]),
        ([A, B | {"weight": 0}], ["weight of a corpus", "entry 2", "weight 0 of work/b"]),
        ([A, B | {"weight": -1.5}], ["above 0", "-1.5"]),
        ([A, B | {"weight": float("nan")}], ["above 0", "nan"]),
        ([A, B | {"weight": float("inf")}], ["above 0", "inf"]),
        ([A, B | {"weight": True}], ["above 0", "True"]),
        ([A, B | {"weight": "1"}], ["above 0", "'1'"]),
        ([A, {"path": "work/b"}], ["entry 2", "{'path': 'work/b'}", "a weight"]),
        ([A, B | {"wieght": 1}], ["entry 2", "no other keys"]),
        ([A, B | {"path": 3}], ["entry 2", "a path"]),
        ([A, "work/b"], ["entry 2", "'work/b'"]),
        ([A, B, {"path": "work/../work/a/", "weight": 1}], ["twice", "work/a and work/../work/a/"]),
    ],
)
def test_a_list_of_corpora_that_makes_no_sense_is_refused(
    key: str, corpora: list[Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        check_run_config(changed(SETTINGS, **{key: corpora}), "test")
    assert all(word in str(error.value) for word in words), error.value
    assert error.value.change == key


def test_a_path_is_one_corpus_and_a_list_survives_the_resolved_config(tmp_path: Path) -> None:
    alone = check_run_config(SETTINGS, "test")
    assert alone.data.train_corpora == (CorpusConfig(path="shards", weight=1.0),)
    assert alone.data.validation_corpora == ()
    mixed = check_run_config(changed(SETTINGS, **{"data.train": [A, B]}), "test")
    path = tmp_path / "config.yaml"
    path.write_text(dump_run_config(mixed))
    assert load_run_config(path) == mixed
    assert [(c.path, c.weight) for c in mixed.data.train_corpora] == [
        ("work/a", 0.7),
        ("work/b", 1),
    ]
    again = load_run_config(path, ["data.train=[{path: work/c, weight: 2}]"])
    assert [c.path for c in again.data.train_corpora] == ["work/c"]
