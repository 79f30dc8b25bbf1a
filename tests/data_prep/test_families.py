"""Tokenizers of the Pegasus family: trained here, the original program's, and those of the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor
from support.commands import user_error
from support.corpus import Corpus, command
from support.sentencepiece_files import train_pegasus_of_the_hub, train_sentencepiece
from transformers import AutoTokenizer, PegasusTokenizer

from bigbird_ds.data.describe import describe_shards
from bigbird_ds.data.format import TokenizerRecord
from bigbird_ds.data.shards import Shards
from bigbird_ds.errors import DataError
from bigbird_ds.hub.describe import describe_tokenizer
from bigbird_ds.vocabulary import Vocabulary
from data_prep.tokenizer_folder import write_tokenizer_folder

ORIGINAL = Path(__file__).resolve().parents[2].parent / "shared" / "vocab" / "pegasus.model"
TEXTS = ["The value of an expression.", "Return the length (the number of items) of an object"]


@pytest.fixture(scope="module")
def hub_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_pegasus_of_the_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module", params=["trained", "hub", "original"])
def folder(
    request: pytest.FixtureRequest,
    corpus: Corpus,
    hub_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp(request.param) / "tokenizer"
    if request.param == "trained":
        words = [corpus.documents, "--out", out, "--vocab-size", 500, "--family", "pegasus"]
        command(["tokenizer", *words])
        return out
    if request.param == "original" and not ORIGINAL.is_file():
        pytest.skip("the original vocabularies are not here (../shared/vocab)")
    spiece = hub_file if request.param == "hub" else ORIGINAL
    command(["tokenizer", "--spiece-model", spiece, "--out", out, "--family", "pegasus"])
    return out


def test_every_kind_has_the_familys_ids(folder: Path) -> None:
    vocabulary = Vocabulary.from_folder(folder)
    assert vocabulary.family == "pegasus"
    assert (vocabulary.pad, vocabulary.eos, vocabulary.unk) == (0, 1, 105)
    assert (vocabulary.sentence_mask, vocabulary.mask) == (2, 3)
    assert vocabulary.is_special[:106].all() and not vocabulary.is_special[110:].any()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == vocabulary.size
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id) == (105, 3)
    assert tokenizer.convert_tokens_to_ids(vocabulary.pieces[2]) == 2
    assert vocabulary.pieces[2] in tokenizer.all_special_tokens


def test_transformers_gives_the_ids_of_the_shards_and_an_end(folder: Path) -> None:
    processor = SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    one, two = (processor.EncodeAsIds(text) for text in TEXTS)
    assert tokenizer(TEXTS[0])["input_ids"] == [*one, 1]
    assert tokenizer(*TEXTS)["input_ids"] == [*one, *two, 1]
    assert set(tokenizer(TEXTS[0])) == {"input_ids", "attention_mask"}
    assert tokenizer.decode([*one, 1], skip_special_tokens=True) == TEXTS[0]
    assert tokenizer.decode([*one, 2, 1], skip_special_tokens=True).strip() == TEXTS[0]


def test_a_file_of_the_hub_gets_the_ids_that_transformers_gives_it(
    hub_file: Path, tmp_path: Path
) -> None:
    write_tokenizer_folder(hub_file, tmp_path / "ours")
    ours = SentencePieceProcessor(model_file=str(tmp_path / "ours" / "spiece.model"))
    plain = SentencePieceProcessor(model_file=str(hub_file))
    assert ours.GetPieceSize() == plain.GetPieceSize() + 103
    for text in TEXTS:
        assert ours.EncodeAsIds(text) == [i + 103 for i in plain.EncodeAsIds(text)]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "spiece.model").write_bytes(hub_file.read_bytes())
    theirs = PegasusTokenizer.from_pretrained(tmp_path / "theirs")
    for piece in ("<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk_2>", "<unk_102>", "<unk>"):
        assert ours.PieceToId(piece) == theirs.convert_tokens_to_ids(piece), piece
    for text in TEXTS:
        assert theirs(text)["input_ids"] == [*ours.EncodeAsIds(text), 1]


def test_ids_are_never_shifted_twice(folder: Path, tmp_path: Path) -> None:
    write_tokenizer_folder(folder / "spiece.model", tmp_path / "again")
    again = (tmp_path / "again" / "spiece.model").read_bytes()
    assert again == (folder / "spiece.model").read_bytes()


def test_a_vocabulary_with_words_where_the_masks_should_be_is_refused(tmp_path: Path) -> None:
    train_sentencepiece(tmp_path, unk=105)
    with pytest.raises(DataError, match="lacks the mask pieces") as caught:
        Vocabulary.from_folder(tmp_path)
    assert "id 2 is" in str(caught.value)


def test_a_file_of_the_other_family_is_refused(
    corpus: Corpus, hub_file: Path, tmp_path: Path
) -> None:
    bigbird = corpus.tokenizer / "spiece.model"
    words = ["--spiece-model", bigbird, "--out", tmp_path / "a", "--family", "pegasus"]
    assert "--family bigbird" in user_error("tokenizer", *words)
    words = ["--spiece-model", hub_file, "--out", tmp_path / "b"]
    assert "--family pegasus" in user_error("tokenizer", *words)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def newline_of(folder: Path) -> str:
    return Vocabulary.from_folder(folder).newline


def test_line_ends_are_pieces_by_default_where_the_family_has_one(folder: Path) -> None:
    vocabulary = Vocabulary.from_folder(folder)
    has_piece = folder.parent.name.startswith(("trained", "original"))
    assert vocabulary.newline_id == (
        106 if has_piece else -1
    )  # the test's model of the Hub has none
    assert vocabulary.newline == ("piece" if has_piece else "space")
    ids = AutoTokenizer.from_pretrained(folder).encode(" Two\r\nlines\n\nand ")
    assert ids.count(vocabulary.newline_id) == (3 if has_piece else 0)
    assert f"a line end becomes a {vocabulary.newline}" in describe_tokenizer(folder)


def test_newline_space_gives_the_original_file_as_it_is(tmp_path: Path) -> None:
    if not ORIGINAL.is_file():
        pytest.skip("the original vocabularies are not here (../shared/vocab)")
    words = ["tokenizer", "--family", "pegasus", "--spiece-model"]
    command([*words, ORIGINAL, "--out", tmp_path / "piece"])
    spiece = tmp_path / "piece" / "spiece.model"
    assert newline_of(tmp_path / "piece") == "piece"
    command([*words, spiece, "--out", tmp_path / "again"])
    assert (tmp_path / "again" / "spiece.model").read_bytes() == spiece.read_bytes()
    command([*words, spiece, "--newline", "space", "--out", tmp_path / "space"])
    assert (tmp_path / "space" / "spiece.model").read_bytes() == ORIGINAL.read_bytes()
    write_tokenizer_folder(ORIGINAL, tmp_path / "kept")  # as an import does
    assert newline_of(tmp_path / "kept") == "space"


def test_a_piece_for_line_ends_is_refused_where_there_is_none(
    corpus: Corpus, hub_file: Path, tmp_path: Path
) -> None:
    words = ["--newline", "piece", "--out", tmp_path / "out"]
    for more in (
        ["--spiece-model", hub_file, "--family", "pegasus"],
        ["--spiece-model", corpus.tokenizer / "spiece.model"],
        [corpus.documents, "--vocab-size", 500],
    ):
        assert "--newline piece" in user_error("tokenizer", *more, *words)
    assert "--kmer with --newline" in user_error("tokenizer", "--kmer", 3, *words)
    assert not (tmp_path / "out").exists()


def test_shards_with_spaces_and_with_pieces_do_not_mix(
    pegasus_corpus: Corpus, tmp_path: Path
) -> None:
    spiece = pegasus_corpus.tokenizer / "spiece.model"
    write_tokenizer_folder(spiece, tmp_path / "space", newline="space")
    words = ["--tokenizer", tmp_path / "space", "--out", tmp_path / "shards"]
    command(["shard", pegasus_corpus.documents, *words])
    with_spaces, with_pieces = Shards(tmp_path / "shards"), Shards(pegasus_corpus.shards)
    assert with_spaces.manifest.tokenizer.newline == "space"
    assert with_pieces.manifest.tokenizer.newline == "piece"
    with pytest.raises(DataError, match="differs from the one") as caught:
        with_spaces.check_tokenizer(Vocabulary.from_folder(pegasus_corpus.tokenizer))
    assert "line ends as <n>" in str(caught.value)
    words = [tmp_path / "merged", tmp_path / "shards", pegasus_corpus.shards]
    assert "needed: sha256" in user_error("merge", *words)
    assert "line ends: the piece <n>" in describe_shards(pegasus_corpus.shards)


def test_a_manifest_that_does_not_mention_line_ends_means_spaces() -> None:
    assert TokenizerRecord.model_validate({"sha256": "0", "vocab_size": 500}).newline == "space"
