import json
import sys
from pathlib import Path

import pytest

from bigbird_ds.errors import DataError
from data_prep.python_docs import main, module_sections, module_text


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("docs") / "docs.jsonl"
    assert main([str(path)]) == 0
    return path


def test_there_are_topics_and_modules_of_about_two_megabytes(corpus_file: Path) -> None:
    records = [json.loads(line) for line in corpus_file.read_text().splitlines()]
    by_id = {record["id"]: record["text"] for record in records}
    assert len(by_id) == len(records) > 300
    assert 1_500_000 < sum(map(len, by_id.values())) < 5_000_000
    assert "assert" in by_id["topic/assert"]
    assert by_id["module/heapq"].startswith("Heap queue algorithm")
    assert "\n\nmerge\n\nMerge multiple sorted inputs" in by_id["module/heapq"]
    assert not any(".tests" in name or name.startswith("module/test.") for name in by_id)


def test_it_is_the_same_each_time(corpus_file: Path, tmp_path: Path) -> None:
    assert main([str(tmp_path / "again.jsonl")]) == 0
    assert (tmp_path / "again.jsonl").read_bytes() == corpus_file.read_bytes()


def test_modules_are_parsed_and_never_imported(tmp_path: Path) -> None:
    source = tmp_path / "trap.py"
    source.write_text(
        '"""The module."""\nimport sys\nsys.trap = True\n'
        'class A:\n    """A class."""\n    def f(self):\n        """A method."""\n'
    )
    assert module_text(source) == "The module.\n\nA\n\nA class.\n\nA.f\n\nA method.\n"
    assert not hasattr(sys, "trap")


def test_the_sections_of_a_module_are_it_and_its_classes(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        '"""The module."""\n'
        'class A:\n    """A class."""\n    def f(self):\n        """A method."""\n'
        'class B:\n    def g(self):\n        """Of a class without text."""\n'
    )
    module, a_class = module_sections(source)
    assert module[0] == "The module." and len(module) == 4
    assert a_class == ["A class.", "f\n\nA method."]


def test_another_package_is_read_instead(tmp_path: Path) -> None:
    out = tmp_path / "docs.jsonl"
    assert main([str(out), "--package", "tokenizers"]) == 0
    assert all(
        json.loads(line)["id"].startswith("module/") for line in out.read_text().splitlines()
    )
    with pytest.raises(DataError, match="no such package"):
        main([str(out), "--package", "no_such_package_here"])
