"""FASTA files as documents."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from support.records import only_bad, read, texts, write

from bigbird_ds.errors import ConfigError, DataError
from bigbird_ds.hub.verify_tokenizer import verify_tokenizer
from bigbird_ds.vocabulary import WORD_START
from data_prep.encoding import DocumentEncoder
from data_prep.families import FAMILIES
from data_prep.records import BadRecord, Document, Fields
from data_prep.shard_job import ShardOptions, write_shards
from data_prep.tokenizer_folder import write_tokenizer_folder
from data_prep.tokenizer_training import TrainingOptions, make_kmer_tokenizer, train_tokenizer
from data_prep.unit_job import DocumentOptions

TWO = b">chr1 first one\nACGTAC\r\nGTnnac\n\n>chr2\nTT TT\n"


def _ids(records: list[Document | BadRecord]) -> list[str | None]:
    return [record.id for record in records if isinstance(record, Document)]


@pytest.mark.parametrize("name", ["a.fa", "a.fasta", "a.FA", "a.fna", "a.fasta.gz"])
def test_a_record_is_a_document_with_its_header_as_id(name: str, tmp_path: Path) -> None:
    data = gzip.compress(TWO) if name.endswith(".gz") else TWO
    records = read(write(tmp_path / name, data))
    assert texts(records) == ["ACGTACGTnnac", "TTTT"]
    assert _ids(records) == ["chr1 first one", "chr2"]
    assert sum(record.num_bytes for record in records) == len(data)
    assert all(isinstance(record, Document) and record.is_sequence for record in records)


def test_case_is_folded_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fa", TWO)
    assert texts(read(path, Fields("text", upper_case=True))) == ["ACGTACGTNNAC", "TTTT"]


def test_gaps_are_cut_on_request_into_regions(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fa", b">c x\nNNNNNNNNNNNNACGT\nANNNC\nNNNNNnnnnn\nGG\n>d\nNNNAC\n")
    records = read(path, Fields("text", cut_gaps=True))
    assert texts(records) == ["ACGTANNNC", "GG", "NNNAC"]
    assert _ids(records) == ["c:13-21", "c:32-33", "d"]
    assert texts(read(path))[0] == "NNNNNNNNNNNNACGTANNNCNNNNNnnnnnGG"


@pytest.mark.parametrize(
    ("data", "reason", "where", "seen"),
    [
        (b">a\nACGT\nAC1T\n", "a character that is in no alphabet", "line 1", "'1' in line 3"),
        (b">a\nACGT\n>b\n\n>c\nA\n", "a record without a sequence", "line 3", "'b'"),
        (b">a x\nA\n>b\nC\n>a y\nG\n", "a name that occurred before", "line 5", "'a'"),
        (b"ACGT\n>a\nA\n", "text before the first header", "line 1", "'ACGT"),
        (b">\nA\n", "a record without a name", "line 1", "only >"),
        (b">a \xff\nA\n", "not UTF-8", "line 1", "0xff"),
        (b">a\nA\xc3\x84\n", "a character that is in no alphabet", "line 1", "line 2"),
    ],
)
def test_a_bad_record_names_its_line(
    data: bytes, reason: str, where: str, seen: str, tmp_path: Path
) -> None:
    bad = only_bad(read(write(tmp_path / "a.fa", data)))
    assert bad.reason.startswith(reason) and bad.place == where and seen in bad.seen


def test_a_record_of_only_gaps_is_bad_where_they_are_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fa", b">a\n" + b"N" * 40 + b"\n>b\nA\n")
    bad = only_bad(read(path, Fields("text", cut_gaps=True)))
    assert bad.reason == "a record of nothing but N"


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    data = gzip.compress(b">a\n" + b"ACGT" * 5000 + b"\n")
    bad = only_bad(read(write(tmp_path / "a.fa.gz", data[:-20])))
    assert bad.reason == "the file is damaged"


def _sequence(length: int, seed: int = 1) -> str:
    return "".join("ACGT"[i] for i in np.random.default_rng(seed).integers(0, 4, length))


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_tokenizer_of_sequences_has_no_word_start_in_the_middle(
    model_type: str, tmp_path: Path
) -> None:
    sequence = _sequence(3000)
    path = write(tmp_path / "a.fa", f">a\n{sequence}\n".encode())
    options = TrainingOptions(250, model_type=model_type)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "spiece.model").write_bytes(train_tokenizer([str(path)], options))
    write_tokenizer_folder(folder / "spiece.model", folder)
    verify_tokenizer(folder)  # tokenizer.json gives the same ids
    encoder = DocumentEncoder(folder)
    encoded = encoder.encode(sequence, is_sequence=True)
    assert encoded.num_unknown == 0
    pieces = [encoder.vocabulary.pieces[i] for i in encoded.ids]
    assert "".join(pieces) == WORD_START + sequence
    starts = [sum(len(p) for p in pieces[:i]) - 1 for i in encoded.sentence_starts[1:]]
    assert starts == [600, 1200, 1800, 2400]


def test_options_of_sequences_without_sequences_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"text")
    for fields in (Fields("text", upper_case=True), Fields("text", cut_gaps=True)):
        with pytest.raises(ConfigError, match="no FASTA file"):
            train_tokenizer([str(tmp_path)], TrainingOptions(300, fields=fields))


def test_shards_of_a_bad_file_are_not_written_and_skipped_records_are_listed(
    tmp_path: Path,
) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "spiece.model").write_bytes(make_kmer_tokenizer(3, FAMILIES["bigbird"]))
    path = str(write(tmp_path / "a.fa", b">a\nACGTACGT\n>b\nAC8T\n>a\nGGG\n"))
    with pytest.raises(DataError, match="line 3: a character that is in no alphabet"):
        write_shards([path], tokenizer, tmp_path / "out", ShardOptions())
    assert not (tmp_path / "out").exists()
    skipping = ShardOptions(DocumentOptions(skip_bad_records=True))
    manifest = write_shards([path], tokenizer, tmp_path / "out", skipping)
    assert manifest is not None and manifest.total("train", "num_documents") == 1
    assert sorted(manifest.dropped.values()) == [1, 1]
    assert manifest.options["upper_case"] is False
