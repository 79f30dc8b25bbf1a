import os
from pathlib import Path

import pytest

from bigbird_ds.errors import DataError
from data_prep.input_kinds import Kind
from data_prep.inputs import find_inputs


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_folder_gives_its_known_files_by_name_at_any_depth(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl", "deep/er/c.parquet", "z.txt.gz", "y.jsonl.zst", "x.jsonl.xz"):
        write(tmp_path / name)
    for name in ("notes.md", ".hidden.txt", ".cache/d.txt", "e.parquet.gz", "gz"):
        write(tmp_path / name)
    names = [file.name for file in find_inputs([str(tmp_path)])]
    assert names == [
        "a.jsonl",
        "b.txt",
        "deep/er/c.parquet",
        "x.jsonl.xz",
        "y.jsonl.zst",
        "z.txt.gz",
    ]


def test_files_of_other_kinds_are_counted_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.md", "deep/B.MD", "c.html.gz", "README", ".hidden.md"):
        write(tmp_path / name)
    others = "4 files of other kinds (.md 2, "
    with pytest.raises(DataError, match="holds no documents") as error:
        find_inputs([str(tmp_path)])
    assert others in error.value.seen
    write(tmp_path / "d.txt")
    assert len(find_inputs([str(tmp_path)])) == 1
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: skipped {others}")
    assert ".html.gz 1" in line and "without suffix 1" in line


def test_kind_and_compression_come_from_the_name_in_letters_of_any_size(tmp_path: Path) -> None:
    files = find_inputs([str(write(tmp_path / "a.b.JsonL.ZST")), str(write(tmp_path / "c.TXT"))])
    assert [(file.kind, file.compression) for file in files] == [
        (Kind.JSON_LINES, ".zst"),
        (Kind.TEXT, ""),
    ]


def test_names_do_not_depend_on_where_the_input_lies(tmp_path: Path) -> None:
    for place in ("here", "there/far"):
        write(tmp_path / place / "in" / "a.txt")
    names = [
        [file.name for file in find_inputs([str(tmp_path / place)])]
        for place in ("here", "there/far")
    ]
    assert names[0] == names[1] == ["in/a.txt"]


def test_a_glob_is_expanded_in_order_also_through_folders(tmp_path: Path) -> None:
    for name in ("2/b.txt", "1/c.txt", "1/a.txt"):
        write(tmp_path / name)
    assert [f.path.name for f in find_inputs([f"{tmp_path}/*/*.txt"])] == [
        "a.txt",
        "c.txt",
        "b.txt",
    ]
    assert [f.path.name for f in find_inputs([f"{tmp_path}/**/c.txt"])] == ["c.txt"]
    assert [f.path.name for f in find_inputs([f"{tmp_path}/[12]"])] == ["a.txt", "c.txt", "b.txt"]


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("missing.txt", "does not exist"),
        ("*.nothing", "does not exist"),
        ("empty_folder", "holds no documents"),
        ("empty.txt", "is empty"),
        ("notes.md", "unknown file type"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    argument: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "empty_folder").mkdir()
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "notes.md")
    with pytest.raises(DataError, match=problem) as error:
        find_inputs([str(tmp_path / argument)])
    assert argument in str(error.value.seen)


def test_a_file_named_twice_is_read_once_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="bigbird_ds")
    path = write(tmp_path / "in" / "sub" / "a.txt")
    (tmp_path / "link.txt").symlink_to(path)
    arguments = [str(path), str(tmp_path / "in"), f"{tmp_path}/in/**", str(tmp_path / "link.txt")]
    assert [file.path for file in find_inputs(arguments)] == [path]
    assert any("paths name files that are already in the input" in line for line in caplog.messages)


def test_link_loops_end_and_each_file_is_found_once(tmp_path: Path) -> None:
    write(tmp_path / "in" / "deep" / "a.txt")
    (tmp_path / "in" / "a_loop").symlink_to(".")
    (tmp_path / "in" / "deep" / "up").symlink_to("..")
    (tmp_path / "in" / "again.txt").symlink_to("deep/a.txt")
    (tmp_path / "in" / "itself").symlink_to("itself")
    assert [file.name for file in find_inputs([str(tmp_path / "in")])] == ["deep/a.txt"]


def test_folders_and_files_behind_links_are_found(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.txt")
    write(tmp_path / "in" / "b.txt")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    assert [f.name for f in find_inputs([str(tmp_path / "in")])] == ["b.txt", "linked/a.txt"]


def test_a_pipe_is_skipped_in_a_folder_and_refused_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    assert [file.name for file in find_inputs([str(tmp_path)])] == ["a.txt"]
    assert "skipped 1 pipes" in caplog.text
    with pytest.raises(DataError, match="not a regular file"):
        find_inputs([str(tmp_path / "pipe.txt")])


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.txt")
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(DataError, match="cannot be read") as error:
        find_inputs([str(tmp_path)])
    assert "b.txt" in str(error.value.seen)


def test_a_folder_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.txt")
    write(tmp_path / "locked" / "b.txt")
    scan = os.scandir

    def deny(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(DataError, match="cannot be read") as error:
        find_inputs([str(tmp_path)])
    assert f"{tmp_path / 'locked'}: Permission denied" in str(error.value.seen)


def test_a_name_that_is_no_utf8_or_would_move_the_cursor_is_escaped(tmp_path: Path) -> None:
    for name in (b"caf\xe9.txt", b"red\x1b[31m.txt"):
        write(tmp_path / os.fsdecode(name))
    assert [file.name for file in find_inputs([str(tmp_path)])] == [
        "caf\\xe9.txt",
        "red\\x1b[31m.txt",
    ]


def test_files_whose_names_tell_no_kind_are_taken_with_a_default_kind(tmp_path: Path) -> None:
    for name in ("wiki_00", "wiki_01.gz", "b.jsonl"):
        write(tmp_path / name)
    assert [file.name for file in find_inputs([str(tmp_path)])] == ["b.jsonl"]
    found = find_inputs([str(tmp_path)], Kind.TEXT)
    assert [(file.name, file.kind, file.compression) for file in found] == [
        ("b.jsonl", Kind.JSON_LINES, ""),
        ("wiki_00", Kind.TEXT, ""),
        ("wiki_01.gz", Kind.TEXT, ".gz"),
    ]


@pytest.mark.parametrize("content", ["no json", "[]", '{"splits": []}'])
def test_a_damaged_list_of_splits_is_a_user_error(content: str, tmp_path: Path) -> None:
    write(tmp_path / "saved" / "dataset_dict.json", content)
    with pytest.raises(DataError):
        find_inputs([str(tmp_path / "saved")])


def test_a_saved_dataset_with_several_splits_names_one_to_take(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="several splits") as error:
        find_inputs([str(tmp_path)])
    assert str(tmp_path / "saved" / "train") in error.value.change
    assert find_inputs([str(tmp_path / "saved" / "train")])[0].kind is Kind.SAVED_DATASET
