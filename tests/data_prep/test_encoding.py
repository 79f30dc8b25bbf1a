from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor
from support.corpus import Corpus

from bigbird_ds.white_space import normalize_white_space
from data_prep.encoding import DocumentEncoder, sentences_of
from data_prep.sentencepiece_model import SentencePieceModel
from data_prep.tokenizer_folder import write_tokenizer_folder

ORIGINAL = Path(__file__).resolve().parents[2].parent / "shared" / "vocab"

TEXT = (
    "A first sentence, with\n\ta line break.  Then another one! Is [MASK] a piece? No.\n\n"
    "A heading\n\nThe last sentence ends here"
)


@pytest.fixture(scope="module")
def encoder(corpus: Corpus) -> DocumentEncoder:
    return DocumentEncoder(corpus.tokenizer)


@pytest.fixture(scope="module")
def processor(corpus: Corpus) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(corpus.tokenizer / "spiece.model"))


def test_sentence_starts_cut_the_ids_into_the_sentences(
    encoder: DocumentEncoder, processor: SentencePieceProcessor
) -> None:
    encoded = encoder.encode(TEXT)
    parts = np.split(encoded.ids, encoded.sentence_starts[1:])
    assert encoded.sentence_starts[0] == 0
    assert [processor.Decode(part.tolist()) for part in parts] == [
        "A first sentence, with a line break.",
        "Then another one!",
        "Is [ MASK] a piece?",
        "No.",
        "A heading",
        "The last sentence ends here",
    ]


def test_ids_are_those_of_the_whole_text_with_white_space_normalised(
    encoder: DocumentEncoder, processor: SentencePieceProcessor
) -> None:
    text = TEXT.replace("[MASK]", "it")
    whole = processor.EncodeAsIds(normalize_white_space(text))
    assert encoder.encode(text).ids.tolist() == whole


@pytest.mark.parametrize(
    "name", ["[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<sep_3>", "<unused_99>"]
)
def test_special_pieces_written_in_a_text_never_become_special_ids(
    encoder: DocumentEncoder, name: str
) -> None:
    encoded = encoder.encode(f"Before {name}{name} after. {name}")
    special = encoder.vocabulary.is_special.copy()
    special[encoder.vocabulary.unk] = False
    assert len(encoded.ids) > 5
    assert not special[encoded.ids].any()


@pytest.mark.parametrize("family", ["bigbird", "pegasus"])
@pytest.mark.parametrize(
    "name",
    ["＜ｍａｓｋ＿１＞", "<mask_2>", "［ＭＡＳＫ］", "［CLS］", "＜ｕｎｋ＿２＞", "＜ｓ＞", "<s>"],  # noqa: RUF001
)
def test_names_of_special_pieces_in_full_width_letters_never_become_special_ids(
    family: str, name: str, tmp_path: Path
) -> None:
    spiece = ORIGINAL / f"{family}.model"
    if not spiece.is_file():
        pytest.skip("the original vocabularies are not here (../shared/vocab)")
    write_tokenizer_folder(spiece, tmp_path / "tokenizer")
    encoder = DocumentEncoder(tmp_path / "tokenizer")
    encoded = encoder.encode(f"Before {name}{name} after. {name}")
    special = encoder.vocabulary.is_special.copy()
    special[encoder.vocabulary.unk] = False
    assert len(encoded.ids) > 5
    assert not special[encoded.ids].any()


def test_chinese_sentences_get_no_space_that_was_not_there(tmp_path: Path) -> None:
    spiece = ORIGINAL / "pegasus.model"
    if not spiece.is_file():
        pytest.skip("the original vocabularies are not here (../shared/vocab)")
    write_tokenizer_folder(spiece, tmp_path / "tokenizer")
    encoder = DocumentEncoder(tmp_path / "tokenizer")
    processor = SentencePieceProcessor(model_file=str(spiece))
    text = "abc。def。 ghi。"
    encoded = encoder.encode(text)
    assert encoded.ids.tolist() == processor.EncodeAsIds(text)
    assert len(encoded.sentence_starts) == 3


def test_a_long_run_without_white_space_gets_none(encoder: DocumentEncoder) -> None:
    encoded = encoder.encode("ab" * 3000)
    assert encoder.vocabulary.is_word_start[encoded.ids].sum() == 1


def test_characters_of_unknown_pieces_are_counted(encoder: DocumentEncoder) -> None:
    snow = "\N{SNOWMAN}"
    encoded = encoder.encode(f"One {snow * 3} and. Another {snow}\N{COMET} here.\n\nNone here.")
    assert encoded.num_unknown == 2
    assert encoded.unknown == {snow: 4, "\N{COMET}": 1}
    assert encoded.num_chars == len("One xxx and.Another xx here.None here.")
    assert encoded.unknown_share == 5 / encoded.num_chars


def test_unknown_tokens_are_counted(encoder: DocumentEncoder) -> None:
    encoded = encoder.encode("One \N{SNOWMAN} and another \N{SNOWMAN}.")
    assert encoded.num_unknown == 2
    assert np.count_nonzero(encoded.ids == encoder.vocabulary.unk) == 2


def test_text_needs_no_look_at_the_pieces_for_sequences(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take a quarter of a second to read, in every worker."""
    monkeypatch.setattr(SentencePieceModel, "read", None)
    encoder = DocumentEncoder(corpus.tokenizer)
    assert len(encoder.encode("Some text.").ids)
    with pytest.raises(TypeError):
        encoder.encode("ACGT", is_sequence=True)


@pytest.mark.parametrize("text", ["", " \n\t ", "\n\n\n"])
def test_a_text_of_white_space_has_no_tokens(encoder: DocumentEncoder, text: str) -> None:
    encoded = encoder.encode(text)
    assert len(encoded.ids) == len(encoded.sentence_starts) == 0


def test_ids_are_uint16_for_small_vocabularies(encoder: DocumentEncoder) -> None:
    assert encoder.encode(TEXT).ids.dtype == np.uint16
    assert encoder.encode(TEXT).sentence_starts.dtype == np.uint32


def test_a_long_document_is_encoded_once_in_batches_of_bounded_size(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = DocumentEncoder(corpus.tokenizer)
    batches: list[int] = []
    real = encoder._processor.Encode

    def counting(sentences: list[str], **options: Any) -> Any:
        batches.append(sum(map(len, sentences)))
        return real(sentences, **options)

    monkeypatch.setattr(encoder._processor, "Encode", counting)
    text = "A sentence of some words, nothing more. " * 50_000  # 2 MB
    reported: list[int] = []
    encoded = encoder.encode(text, reported.append)
    assert sum(batches) <= len(text)  # every character once
    assert max(batches) < 300_000  # and few at a time
    assert sum(reported) == len(encoded.ids)


def test_empty_sentences_are_left_out() -> None:
    assert list(sentences_of("\n\nOne.\n\n \n\nTwo.\n\n")) == ["One.", "Two."]


def test_line_ends_end_the_sentence_before_them(pegasus_corpus: Corpus) -> None:
    encoder = DocumentEncoder(pegasus_corpus.tokenizer)
    processor = SentencePieceProcessor(model_file=str(pegasus_corpus.tokenizer / "spiece.model"))
    encoded = encoder.encode("\n The first\r\nline. \n\nA second, \t and\rmore! The third.\n")
    parts = np.split(encoded.ids, encoded.sentence_starts[1:])
    assert [processor.Decode(part.tolist()) for part in parts] == [
        "The first<n>line.<n><n>",
        "A second, and<n>more!",
        "The third.",
    ]
    starts = encoder.vocabulary.is_word_start[encoded.ids[encoded.sentence_starts]]
    assert starts.tolist() == [True, False, True]  # the second has no space before it
    text = "The first-line.--A second, and-more!The third."  # a line end is one character
    assert encoded.num_chars == len(text)
