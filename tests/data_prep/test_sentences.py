# ruff: noqa: RUF001 (sentences of many scripts)
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sentence_marks import ABBREVIATIONS, BEFORE_NUMBER, MARKS_WITHOUT_SPACE
from data_prep.sentences import MAX_SENTENCE_CHARS, _has_mark_without_space, sentence_spans


def split(text: str) -> list[str]:
    return [
        text[start:end].strip() for start, end in sentence_spans(text) if text[start:end].strip()
    ]


def test_terminators_end_sentences_with_their_quotes_and_brackets() -> None:
    assert split('He came. "Why?" she said! (It rained.) So… They left.') == [
        "He came.",
        '"Why?" she said!',
        "(It rained.)",
        "So…",
        "They left.",
    ]


def test_abbreviations_initials_numbers_and_lower_case_do_not_end_sentences() -> None:
    for sentence in (
        "Dr. Smith met Prof. Jones.",
        "J. R. R. Tolkien and J.R. Ewing wrote it.",
        "The U.S. Army and e.g. The Navy, see Fig. 3 and No. 7.",
        "Pi is 3.14159, version 1.2.3 of it.",
        "Yes... maybe, etc. and so on.",
        "1. First things first.",
    ):
        assert split(sentence) == [sentence]
        assert split(f"{sentence} Next one.") == [sentence, "Next one."]


@pytest.mark.parametrize("capitals", [True, False])
def test_every_abbreviation_is_recognized(capitals: bool) -> None:
    """Words that do not end as an abbreviation are decided without a look at the list."""
    for word in sorted(ABBREVIATIONS):
        sentence = f"We saw {word.capitalize() if capitals else word}. Smith on Monday."
        assert split(sentence) == [sentence]
    for word in sorted(BEFORE_NUMBER):
        sentence = f"We saw it in {word.capitalize() if capitals else word}. 3 on Monday."
        assert split(sentence) == [sentence]


def test_a_word_before_a_number_ends_a_sentence_where_no_number_follows() -> None:
    assert split("He said no. She agreed.") == ["He said no.", "She agreed."]


def test_empty_lines_end_paragraphs_and_single_newlines_do_not() -> None:
    assert split("A title\n \t\nSome text\non two lines") == ["A title", "Some text\non two lines"]


def test_chinese_and_japanese_need_no_white_space() -> None:
    text = "今日は。「行くよ！」明日は"
    assert split(text) == ["今日は。", "「行くよ！」", "明日は"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("यह पहला वाक्य है। यह दूसरा वाक्य है। यह तीसरा है।", 3),
        ("یہ پہلا جملہ ہے۔ یہ دوسرا جملہ ہے۔ کیا یہ تیسرا ہے؟ جی ہاں۔", 4),
        ("هل هذا سؤال؟ نعم هذا سؤال. وهذا جواب! انتهى.", 4),
        ("Սա առաջին նախադասությունն է։ Սա երկրորդն է։", 2),
        ("ይህ የመጀመሪያው ነው። ይህ ሁለተኛው ነው።", 2),
        ("ဒါက ပထမ ဝါကျ။ ဒါက ဒုတိယ ဝါကျ။", 2),
        ("នេះជាប្រយោគទីមួយ។ នេះជាប្រយោគទីពីរ។", 2),
        ("འདི་ནི་ཚིག་གྲུབ་དང་པོ་ཡིན། འདི་ནི་གཉིས་པ་ཡིན།", 2),
        ("这是第一句。这是第二句！“真的吗？”是的。……好吧。", 5),
        ("这是第一句.这是第二句?是的.", 3),
        ("А. С. Пушкин родился в 1799 г. в Москве. Он писал стихи и т. д. Потом умер.", 3),
        ("¿Qué hora es? ¡Qué bien! El Sr. Gómez llegó. Fin.", 4),
    ],
)
def test_sentences_of_many_scripts(text: str, count: int) -> None:
    assert len(split(text)) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("i wish i had a better answer . starlings are not . it is small . there 's nothing !", 4),
        ("although it is modest , it is important . we used 20 subjects . see table 1 .", 3),
        ("i went home. then i slept! did you? yes i did, said dr. smith.", 4),
    ],
)
def test_a_document_without_capitals_is_cut_before_lower_case(text: str, count: int) -> None:
    assert len(split(text)) == count


def test_capitals_in_a_document_keep_lower_case_from_beginning_a_sentence() -> None:
    text = '"Stop!" he said. "Why?" she asked.'
    assert split(text) == ['"Stop!" he said.', '"Why?" she asked.']


def test_footnote_marks_belong_to_the_sentence_before() -> None:
    text = "It was built in 1900.[1][2] The tower is tall.[3] It stands."
    assert split(text) == ["It was built in 1900.[1][2]", "The tower is tall.[3]", "It stands."]


def test_a_capital_before_an_opening_word_ends_a_sentence() -> None:
    text = "It is vitamin C. The other is plan B. We go to J. Smith."
    assert split(text) == ["It is vitamin C.", "The other is plan B.", "We go to J. Smith."]


def test_german_ordinals_and_abbreviations_of_two_letters_do_not_end_sentences() -> None:
    for sentence in (
        "Am 3. Oktober 1990 war es so weit.",
        "Das 19. Jahrhundert endete.",
        "Z. B. hier, d. h. dort.",
        "Das ist z. B. Prof. Müller bzw. Dr. Meier.",
    ):
        assert split(f"{sentence} Dann ging er.") == [sentence, "Dann ging er."]


@pytest.mark.parametrize("mark", ["\f", "\u2029", "\r\r", "\r\n\r\n", "\n \n"])
def test_pages_and_paragraphs_end_sentences(mark: str) -> None:
    assert split(f"A heading{mark}Some text") == ["A heading", "Some text"]


@pytest.mark.parametrize(
    "character",
    [
        "e\u0301",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f44d\U0001f3fd",
        "\U0001f1e9\U0001f1ea",
    ],
)
def test_no_character_of_several_code_points_is_torn(character: str) -> None:
    text = "x" + character * MAX_SENTENCE_CHARS
    for start, end in sentence_spans(text):
        assert (end - 1) % len(character) == 0 and end - start <= MAX_SENTENCE_CHARS


def test_long_sentences_are_cut_at_white_space() -> None:
    words = "word " * 5000
    parts = [words[start:end] for start, end in sentence_spans(words)]
    assert all(len(part) <= MAX_SENTENCE_CHARS for part in parts)
    assert len(parts) == -(-len(words) // MAX_SENTENCE_CHARS)
    assert {word for part in parts for word in part.split()} == {"word"}


def test_a_run_without_white_space_is_cut_at_the_greatest_length() -> None:
    spans = list(sentence_spans("x" * (2 * MAX_SENTENCE_CHARS + 1)))
    assert [end - start for start, end in spans] == [MAX_SENTENCE_CHARS, MAX_SENTENCE_CHARS, 1]


@given(st.text(alphabet=st.sampled_from("aZ1.!?…。؟।\f\r[] \n\t\"')([”"), max_size=300))
def test_spans_cover_the_text_without_gap_or_overlap(text: str) -> None:
    spans = list(sentence_spans(text))
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(0 < end - start <= MAX_SENTENCE_CHARS for start, end in spans)


def test_rows_of_terminators_quotes_and_newlines_take_linear_time() -> None:
    # A quadratic scan of a megabyte takes hours: the test would not end.
    for row in (".", '."', "\n", "\n ", " ", "!?)", "A. ", "\r ", ".[", "。", "a. "):
        text = row * (1_000_000 // len(row))
        assert sum(end - start for start, end in sentence_spans(text)) == len(text)


def test_the_table_of_marks_is_the_character_class() -> None:
    pattern = re.compile(f"[{MARKS_WITHOUT_SPACE}]")
    marks = [each for each in map(chr, range(0x20000)) if pattern.match(each)]
    found = [each for each in map(chr, range(0x20000)) if _has_mark_without_space("é" + each)]
    assert found == marks and len(marks) > 100
    assert _has_mark_without_space("a" * 70_000 + marks[0])
    assert not _has_mark_without_space("a" * 70_000 + "\U0010ffff“”")
