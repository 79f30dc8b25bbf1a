import string
from collections import Counter
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from support.corpus import Corpus, write_documents

from bigbird_ds.errors import ConfigError
from data_prep.tokenizer_training import TrainingOptions, sample, train_tokenizer


def test_special_ids_are_bigbirds(corpus: Corpus) -> None:
    processor = SentencePieceProcessor(model_file=str(corpus.tokenizer / "spiece.model"))
    pieces = [processor.IdToPiece(i) for i in range(processor.GetPieceSize())]
    assert pieces[:4] == ["<pad>", "</s>", "<s>", "<sep_0>"]
    assert pieces[64:68] == ["<sep_61>", "[CLS]", "[SEP]", "[MASK]"]
    assert pieces[68] == "<unused_68>"
    assert pieces[99:101] == ["<unused_99>", "<unk>"]
    assert len(pieces) == 500
    ids = processor.pad_id(), processor.eos_id(), processor.bos_id(), processor.unk_id()
    assert ids == (0, 1, 2, 100)


def test_every_printable_character_of_ascii_is_known(corpus: Corpus) -> None:
    processor = SentencePieceProcessor(model_file=str(corpus.tokenizer / "spiece.model"))
    for character in string.ascii_letters + string.digits + string.punctuation:
        assert processor.unk_id() not in processor.EncodeAsIds(character)


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    documents = str(write_documents(tmp_path / "documents.jsonl", 20))
    options = TrainingOptions(vocab_size=400, max_sentences=300)  # fewer than there are
    assert train_tokenizer([documents], options) == train_tokenizer([documents], options)


def test_a_cap_on_sentences_changes_the_model(tmp_path: Path) -> None:
    documents = str(write_documents(tmp_path / "documents.jsonl", 20))
    capped = train_tokenizer([documents], TrainingOptions(400, max_sentences=300))
    assert capped != train_tokenizer([documents], TrainingOptions(400))


def test_a_sample_is_the_whole_where_it_is_small_enough() -> None:
    assert sample(["a", "b", "c"], 3) == ["a", "b", "c"]


def test_a_sample_is_uniform_and_always_the_same() -> None:
    words = [str(i) for i in range(20_000)]
    chosen = sample(words, 5000)
    assert chosen == sample(iter(words), 5000)
    assert len(set(chosen)) == 5000
    quarters = Counter(int(word) // 5000 for word in chosen)
    # hypergeometric, standard deviation 26.5: five of them
    assert all(abs(count - 1250) < 133 for count in quarters.values())


@pytest.mark.parametrize(
    ("vocab_size", "needed"), [(100_000, r"at most \d+"), (150, r"at least \d+")]
)
def test_a_size_that_cannot_be_reached_says_what_can(
    vocab_size: int, needed: str, corpus: Corpus
) -> None:
    with pytest.raises(ConfigError, match=needed) as error:
        train_tokenizer([str(corpus.documents)], TrainingOptions(vocab_size))
    assert error.value.change == "--vocab-size"
    assert error.value.seen == vocab_size
