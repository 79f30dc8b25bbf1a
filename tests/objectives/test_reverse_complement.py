"""The reverse complement of windows of DNA."""

from __future__ import annotations

import numpy as np
import pytest
from support.shards import make_vocabulary

from bigbird_ds.errors import ConfigError
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.objectives import build_objective
from bigbird_ds.objectives.pretraining import MaskingOptions
from bigbird_ds.objectives.reverse_complement import ReverseComplement
from bigbird_ds.vocabulary import WORD_START, Vocabulary
from data_prep.encoding import DocumentEncoder
from data_prep.families import FAMILIES
from data_prep.tokenizer_training import TrainingOptions, make_kmer_tokenizer, train_tokenizer

COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}


def _sequence(length: int, seed: int = 0) -> str:
    return "".join("ACGT"[i] for i in np.random.default_rng(seed).integers(0, 4, length))


@pytest.fixture(scope="module", params=["kmer", "bpe"])
def encoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> DocumentEncoder:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "kmer":
        model = make_kmer_tokenizer(3, FAMILIES["bigbird"])
    else:
        (folder / "a.fa").write_text(f">a\n{_sequence(3000)}NNNN\n", encoding="ascii")
        options = TrainingOptions(200, model_type="bpe")
        model = train_tokenizer([str(folder / "a.fa")], options)
    (folder / "spiece.model").write_bytes(model)
    return DocumentEncoder(folder)


def _bases(vocabulary: Vocabulary, ids: np.ndarray) -> str:
    pieces = ["|" if i == vocabulary.sep else vocabulary.pieces[i] for i in ids]
    return "".join(pieces).replace(WORD_START, "")


def _reversed(text: str) -> str:
    return "".join(COMPLEMENT.get(base, base) for base in reversed(text))


def test_bases_are_complemented_and_read_backwards(encoder: DocumentEncoder) -> None:
    vocabulary = encoder.vocabulary
    reverse = ReverseComplement(vocabulary)
    first, second = _sequence(901, 1), _sequence(50, 2) + "NNAN" + _sequence(20, 3)
    ids = [encoder.encode(t, is_sequence=True).ids.astype(np.int64) for t in (first, second)]
    joined = np.concatenate([ids[0], [vocabulary.sep], ids[1]])
    (found,) = reverse.apply([joined], vocabulary.sep, 5000)
    assert _bases(vocabulary, found) == _reversed(first + "|" + second)
    assert not vocabulary.is_word_start[found].any() and found.dtype == np.int64
    assert (found == vocabulary.sep).sum() == 1
    (again,) = reverse.apply([found], vocabulary.sep, 5000)
    assert _bases(vocabulary, again) == first + "|" + second
    a, b = reverse.apply(ids, vocabulary.sep, 7)  # two parts swap places
    assert len(a) == len(b) == 7
    assert _reversed(second).startswith(_bases(vocabulary, a))
    assert _reversed(first).startswith(_bases(vocabulary, b))


def test_the_strand_is_a_function_of_the_key(encoder: DocumentEncoder) -> None:
    vocabulary = encoder.vocabulary
    part = encoder.encode(_sequence(400), is_sequence=True).ids.astype(np.int64)

    def example(share: float, sample: int) -> dict[str, np.ndarray]:
        objective = build_objective("mlm", vocabulary, MaskingOptions(reverse_complement=share))
        return objective.example([part], -100, keyed_generator(1, "masks", 0, sample), 512)

    def is_forward(example: dict[str, np.ndarray]) -> bool:
        ids = example["input_ids"].copy()
        used = example["target_ids"] != -100
        ids[example["target_positions"][used]] = example["target_ids"][used]
        return _bases(vocabulary, ids[1 : 1 + len(part)]).startswith(_sequence(400)[:300])

    drawn = [is_forward(example(0.5, sample)) for sample in range(40)]
    assert drawn == [is_forward(example(0.5, sample)) for sample in range(40)]
    assert 8 < sum(drawn) < 32
    assert not is_forward(example(1.0, 0)) and is_forward(example(0.0, 0))


def test_other_vocabularies_and_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs a tokenizer of DNA"):
        build_objective("mlm", make_vocabulary(), MaskingOptions(reverse_complement=0.5))
    with pytest.raises(ConfigError, match=r"reverse_complement=1.5"):
        MaskingOptions(reverse_complement=1.5)
