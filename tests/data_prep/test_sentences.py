from hypothesis import given
from hypothesis import strategies as st

from data_prep.sentences import MAX_SENTENCE_CHARS, sentence_spans


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


def test_a_word_before_a_number_ends_a_sentence_where_no_number_follows() -> None:
    assert split("He said no. She agreed.") == ["He said no.", "She agreed."]


def test_empty_lines_end_paragraphs_and_single_newlines_do_not() -> None:
    assert split("A title\n \t\nSome text\non two lines") == ["A title", "Some text\non two lines"]


def test_chinese_and_japanese_need_no_white_space() -> None:
    text = "今日は。「行くよ！」明日は"  # noqa: RUF001
    assert split(text) == ["今日は。", "「行くよ！」", "明日は"]  # noqa: RUF001


def test_long_sentences_are_cut_at_white_space() -> None:
    words = "word " * 5000
    parts = [words[start:end] for start, end in sentence_spans(words)]
    assert all(len(part) <= MAX_SENTENCE_CHARS for part in parts)
    assert len(parts) == -(-len(words) // MAX_SENTENCE_CHARS)
    assert {word for part in parts for word in part.split()} == {"word"}


def test_a_run_without_white_space_is_cut_at_the_greatest_length() -> None:
    spans = list(sentence_spans("x" * (2 * MAX_SENTENCE_CHARS + 1)))
    assert [end - start for start, end in spans] == [MAX_SENTENCE_CHARS, MAX_SENTENCE_CHARS, 1]


@given(st.text(alphabet=st.sampled_from("aZ1.!?…。 \n\t\"')([”"), max_size=300))
def test_spans_cover_the_text_without_gap_or_overlap(text: str) -> None:
    spans = list(sentence_spans(text))
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(0 < end - start <= MAX_SENTENCE_CHARS for start, end in spans)


def test_rows_of_terminators_quotes_and_newlines_take_linear_time() -> None:
    # A quadratic scan of a megabyte takes hours: the test would not end.
    for row in (".", '."', "\n", "\n ", " ", "!?)", "A. "):
        text = row * (1_000_000 // len(row))
        assert sum(end - start for start, end in sentence_spans(text)) == len(text)
