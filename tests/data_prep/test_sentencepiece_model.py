from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from support.corpus import Corpus

from bigbird_ds.errors import DataError
from data_prep.sentencepiece_model import PieceType, SentencePieceModel, round_scores

ORIGINAL = Path(__file__).resolve().parents[2].parent / "shared" / "vocab"


@pytest.mark.parametrize("name", ["trained", "bigbird", "pegasus"])
def test_it_reads_what_protobuf_reads(name: str, corpus: Corpus) -> None:
    trained = corpus.tokenizer / "spiece.model"
    path = trained if name == "trained" else ORIGINAL / f"{name}.model"
    if not path.is_file():
        pytest.skip("the original vocabularies are not here (../shared/vocab)")
    expected = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    model = SentencePieceModel.read(path)
    assert [(p.text, p.score, p.type) for p in model.pieces] == [
        (p.piece, p.score, p.type) for p in expected.pieces
    ]
    spec, trainer = expected.normalizer_spec, expected.trainer_spec
    assert model.charsmap == spec.precompiled_charsmap
    assert model.add_dummy_prefix == spec.add_dummy_prefix
    assert model.remove_extra_whitespaces == spec.remove_extra_whitespaces
    assert model.escape_whitespaces == spec.escape_whitespaces
    assert model.model_type == trainer.model_type
    assert model.byte_fallback == trainer.byte_fallback
    assert model.treat_whitespace_as_suffix == trainer.treat_whitespace_as_suffix
    assert model.pieces[model.unknown_id].type == PieceType.UNKNOWN


def test_rounded_scores_are_multiples_and_nothing_else_changes(corpus: Corpus) -> None:
    data = (corpus.tokenizer / "spiece.model").read_bytes()
    model = sentencepiece_model_pb2.ModelProto.FromString(data)
    for piece in model.pieces:
        piece.score += 0.0029
    changed = sentencepiece_model_pb2.ModelProto.FromString(round_scores(model.SerializeToString()))
    for piece, rounded in zip(model.pieces, changed.pieces, strict=True):
        assert (128 * rounded.score).is_integer()
        assert abs(piece.score - rounded.score) <= 1 / 256
        rounded.score = piece.score
    assert changed == model


@pytest.mark.parametrize("content", [b"", b"no model at all\n", b"\x0a\xff\xff", b"\x0b\x00"])
def test_another_file_is_not_a_model(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(DataError, match="not a sentencepiece model"):
        SentencePieceModel.read(tmp_path / "spiece.model")


def test_a_truncated_model_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    data = (corpus.tokenizer / "spiece.model").read_bytes()
    (tmp_path / "spiece.model").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a sentencepiece model"):
        SentencePieceModel.read(tmp_path / "spiece.model")


def test_the_original_and_ours_agree_with_the_processor_on_the_unknown_id(corpus: Corpus) -> None:
    path = corpus.tokenizer / "spiece.model"
    processor = SentencePieceProcessor(model_file=str(path))
    assert SentencePieceModel.read(path).unknown_id == processor.unk_id() == 100
