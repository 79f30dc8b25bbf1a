"""A vocabulary of k-mers: the ids of sequences in shards and of transformers' tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from bigbird_ds.hub.verify_tokenizer import verify_tokenizer
from bigbird_ds.vocabulary import WORD_START
from data_prep.encoding import DocumentEncoder
from data_prep.families import FAMILIES
from data_prep.sequence_spans import fixed_spans, kmer_spans
from data_prep.tokenizer_folder import write_tokenizer_folder
from data_prep.tokenizer_training import make_kmer_tokenizer


@pytest.fixture(scope="module", params=["bigbird", "pegasus"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    spiece = folder / "spiece.model"
    spiece.write_bytes(make_kmer_tokenizer(4, FAMILIES[request.param]))
    write_tokenizer_folder(spiece, folder)
    verify_tokenizer(folder)
    return folder


def _sequence(length: int) -> str:
    return "".join("ACGT"[i] for i in np.random.default_rng(length).integers(0, 4, length))


def test_a_sequence_becomes_the_kmers_from_its_first_base_on(folder: Path) -> None:
    encoder = DocumentEncoder(folder)
    encoded = encoder.encode("ACGTTTTTAGN" + "CCCCA", is_sequence=True)
    pieces = [encoder.vocabulary.pieces[i] for i in encoded.ids]
    assert pieces == [WORD_START, "ACGT", "TTTT", "A", "G", "N", "CCCC", "A"]
    assert encoded.num_unknown == 0
    assert encoder.vocabulary.size - len(pieces) > 4**4


@pytest.mark.parametrize("length", [1, 4, 5, 599, 600, 601, 2402])
@pytest.mark.parametrize("middle", ["", "N", "NNNNNRYN", "acgt"])
def test_raw_sequences_have_the_ids_of_the_shards(folder: Path, length: int, middle: str) -> None:
    text = _sequence(length) + middle + _sequence(length + 2)
    in_shards = DocumentEncoder(folder).encode(text, is_sequence=True).ids.tolist()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(text, add_special_tokens=False).ids == in_shards


def test_letters_that_no_kmer_has_are_unknown_in_lower_case(folder: Path) -> None:
    encoded = DocumentEncoder(folder).encode("acgtACGT", is_sequence=True)
    assert encoded.unknown.total() == 4


@pytest.mark.parametrize("length", [0, 1, 599, 600, 601, 5000])
def test_spans_cover_a_sequence_without_a_gap(length: int) -> None:
    text = _sequence(length) + "NN" + _sequence(length)
    for spans in (fixed_spans, kmer_spans(6)):
        bounds = list(spans(text))
        assert "".join(text[a:b] for a, b in bounds) == text
        assert all(0 < b - a <= 600 for a, b in bounds)
