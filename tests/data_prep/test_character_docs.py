import json
from pathlib import Path

from data_prep.character_docs import RANGE, describe, main


def test_a_description_says_what_the_database_says() -> None:
    assert describe("é") == (
        "The latin small letter e with acute is a lowercase letter, written from left to right. "
        "Its capital is the latin capital letter e with acute. "
        "It is made of the latin small letter e and the combining acute accent."
    )
    assert describe("٣") == "The arabic-indic digit three is a decimal digit. Its value is 3."
    assert describe("ﬁ").endswith(
        "It is compat, made of the latin small letter f and the latin small letter i."
    )


def test_characters_without_a_name_of_their_own_are_left_out() -> None:
    assert describe("\n") == describe("一") == describe("각") == ""


def test_documents_are_ranges_in_order_and_the_same_each_time(tmp_path: Path) -> None:
    assert main([str(tmp_path / "one.jsonl")]) == main([str(tmp_path / "two.jsonl")]) == 0
    text = (tmp_path / "one.jsonl").read_text()
    assert text == (tmp_path / "two.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    starts = [int(record["id"].removeprefix("U+"), 16) for record in records]
    assert starts == sorted(set(starts)) and all(start % RANGE == 0 for start in starts)
    assert len(records) > 1000
    assert 2_000_000 < sum(len(record["text"]) for record in records) < 5_000_000
