"""Whole-word masking: which runs of a text are words, in scripts with and without spaces."""

# ruff: noqa: RUF001

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.shards import make_vocabulary

from bigbird_ds import keyed_random
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.objectives.masking import Masker
from bigbird_ds.objectives.word_spans import CHUNKS, MAX_WORD_TOKENS, WordCounts, WordSpans
from bigbird_ds.vocabulary import Vocabulary
from data_prep.encoding import DocumentEncoder
from data_prep.tokenizer_training import TrainingOptions, train_tokenizer

# The Universal Declaration of Human Rights, articles 1 and 2.
UNSPACED = {
    "Chinese": "人人生而自由，在尊严和权利上一律平等。"
    "他们赋有理性和良心，并应以兄弟关系的精神相对待。\n"
    "人人有资格享有本宣言所载的一切权利和自由，不分种族、肤色、性别、语言、宗教、政治或其他见解、"
    "国籍或社会出身、财产、出生或其他身分等任何区别。\n并且不得因一人所属的国家或领土的政治的、"
    "行政的或者国际的地位之不同而有所区别。\n任何人不得加以奴役。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、"
    "かつ、尊厳と権利とについて平等である。\n"
    "人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。\n"
    "すべて人は、人種、皮膚の色、性、言語、宗教、政治上その他の意見、国民的もしくは社会的出身、財産、"
    "門地その他の地位又はこれに類するいかなる事由による差別をも受けることなく、この宣言に掲げる"
    "すべての権利と自由とを享有することができる。",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ "
    "ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ "
    "ทุกคนย่อมมีสิทธิและอิสรภาพทั้งปวงตามที่กำหนดไว้ในปฏิญญานี้ "
    "โดยปราศจากความแตกต่างไม่ว่าชนิดใดๆ ทั้งสิ้น ความคิดเห็นทางการเมืองหรือทางอื่น "
    "เผ่าพันธุ์แห่งชาติหรือสังคม ทรัพย์สินกำเนิดหรือสถานะอื่นๆ",
    "DNA": "".join("ACGT"[i] for i in np.random.default_rng(0).integers(0, 4, 1500)),
}
GERMAN = (
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und "
    "Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen, so auch die "
    "Donaudampfschifffahrtsgesellschaft. Jeder hat Anspruch auf alle in dieser Erklärung "
    "verkündeten Rechte und Freiheiten, ohne irgendeinen Unterschied, etwa nach Rasse, Farbe, "
    "Geschlecht oder Sprache, und die Rechtsschutzversicherungsgesellschaft hat ihn auch. Niemand "
    "darf in Sklaverei gehalten werden, es sei denn auf See nach der Straßenverkehrsordnung."
)
CODE = Path(keyed_random.__file__).read_text(encoding="utf-8")
ENGLISH = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason "
    "and conscience and should act towards one another in a spirit of brotherhood. Everyone is "
    "entitled to all the rights and freedoms set forth in this Declaration."
)
SPACED = {"German": GERMAN, "source code": CODE, "English": ENGLISH}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> DocumentEncoder:
    """Of a tokenizer trained on all of these texts."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for name, text in (UNSPACED | SPACED).items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    options = TrainingOptions(vocab_size=760, character_coverage=1.0)
    (folder / "spiece.model").write_bytes(train_tokenizer([str(folder)], options))
    return DocumentEncoder(folder)


def _run_lengths(positions: np.ndarray) -> np.ndarray:
    """The lengths of the runs of adjacent targets."""
    ends = np.flatnonzero(np.diff(positions, append=positions[-1] + 2) > 1)
    return np.diff(ends, prepend=-1)


def _mean_run(masker: Masker, ids: np.ndarray, samples: int = 200) -> tuple[float, float]:
    """Over many draws: mean length of the runs of adjacent targets, and share of long ones."""
    runs = [
        _run_lengths(masker.choose(ids, keyed_generator(0, "masks", sample=sample)))
        for sample in range(samples)
    ]
    lengths = np.concatenate(runs)
    return float(lengths.mean()), float((lengths >= 8).mean())


def _word_lengths(vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    """Tokens of each run between two spaces."""
    is_start = vocabulary.is_word_start[ids]
    is_start[0] = True
    return np.diff(np.flatnonzero(is_start), append=len(ids))


@pytest.mark.parametrize("script", UNSPACED)
def test_text_without_spaces_is_masked_by_token(encoder: DocumentEncoder, script: str) -> None:
    ids = encoder.encode(UNSPACED[script]).ids.astype(np.int64)
    vocabulary = encoder.vocabulary
    by_token = _mean_run(Masker(vocabulary, 0.15, None), ids)
    by_word = _mean_run(Masker(vocabulary, 0.15, WordSpans(vocabulary)), ids)
    in_chunks = _mean_run(Masker(vocabulary, 0.15, WordSpans(vocabulary, CHUNKS)), ids)
    assert by_word[0] == pytest.approx(by_token[0], rel=0.05) and by_token[0] < 1.25
    assert by_word[1] < 0.01
    assert in_chunks[0] > 5 and in_chunks[1] > 0.3  # what it was before
    counts = WordSpans(vocabulary).count(ids)
    assert counts.unspaced_tokens > 0.95 * len(ids)


@pytest.mark.parametrize("text", SPACED)
def test_words_between_spaces_are_masked_whole(encoder: DocumentEncoder, text: str) -> None:
    ids = encoder.encode(SPACED[text]).ids.astype(np.int64)
    vocabulary = encoder.vocabulary
    lengths = _word_lengths(vocabulary, ids)
    counts = WordSpans(vocabulary).count(ids)
    assert counts.runs == len(lengths)
    # None in prose, however long its words; in code, a few long expressions.
    assert counts.unspaced_runs <= (0.02 * counts.runs if text == "source code" else 0)
    chosen = Masker(vocabulary, 0.15, WordSpans(vocabulary)).choose(
        ids, keyed_generator(0, "masks")
    )
    cut = 0
    for begin, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        cut += np.isin(np.arange(begin, begin + length), chosen).sum() not in (0, length)
    assert cut <= counts.unspaced_runs


def test_text_with_words_has_the_draws_that_it_had(encoder: DocumentEncoder) -> None:
    ids = encoder.encode(ENGLISH * 3).ids.astype(np.int64)
    now, before = (
        Masker(encoder.vocabulary, 0.15, WordSpans(encoder.vocabulary, unspaced))
        for unspaced in ("tokens", CHUNKS)
    )
    for sample in range(50):
        generators = [keyed_generator(3, "masks", sample=sample) for _ in range(2)]
        assert (now.choose(ids, generators[0]) == before.choose(ids, generators[1])).all()


def test_words_next_to_text_without_spaces_stay_words(encoder: DocumentEncoder) -> None:
    ids = encoder.encode(ENGLISH * 2 + " " + UNSPACED["Chinese"] + " " + ENGLISH * 2).ids
    counts = WordSpans(encoder.vocabulary).count(ids)
    chinese = encoder.encode(UNSPACED["Chinese"]).ids
    assert counts.unspaced_runs <= 8  # the lines of the Chinese text
    assert len(chinese) * 0.9 <= counts.unspaced_tokens <= len(chinese) * 1.1


def test_a_long_run_is_a_unit_per_token_or_per_chunk() -> None:
    vocabulary = make_vocabulary()
    ids = np.full(40, 9)  # odd: no word starts
    positions = np.array([*range(1, 4), *range(5, 42)])
    tokens = WordSpans(vocabulary).starts(ids, positions)
    assert tokens.tolist() == [0, *range(3, 40)]
    chunks = WordSpans(vocabulary, CHUNKS).starts(ids, positions)
    assert chunks.tolist() == [0, 3, 3 + MAX_WORD_TOKENS, 3 + 2 * MAX_WORD_TOKENS]


def test_counts_of_special_tokens_alone_are_zero() -> None:
    assert WordSpans(make_vocabulary()).count(np.array([4, 5])) == WordCounts()
    one = WordSpans(make_vocabulary()).count(np.array([4, 8, 9, 5]))
    assert one + one == WordCounts(runs=2, tokens=4)


def test_a_line_end_is_a_unit_and_a_word_begins_after_it() -> None:
    vocabulary = replace(make_vocabulary(20), newline_id=10)
    ids = np.array([12, 13, 10, 15, 17, 10, 10, 12])  # odd ids continue a word
    starts = WordSpans(vocabulary).starts(ids, np.arange(len(ids)))
    assert starts.tolist() == [0, 2, 3, 5, 6, 7]
