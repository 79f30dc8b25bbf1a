import errno
from pathlib import Path

import pytest

from bigbird_ds import files
from bigbird_ds.errors import ConfigError


def test_an_output_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    for _ in range(2):  # the second time it is there
        files.make_folder(tmp_path / "a" / "b", ConfigError, "--out")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below", "link_to_nothing", "/proc", "/proc/run"])
def test_an_output_that_cannot_be_written_is_a_user_error(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link_to_nothing").symlink_to(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="cannot be written") as error:
        files.make_folder(tmp_path / place, ConfigError, "--out")
    assert place in error.value.seen
    assert error.value.change == "--out"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "..", "../a", "a/../../b", "/etc/passwd", "/"])
def test_a_name_that_leaves_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="points outside its folder") as error:
        files.inside(tmp_path, name, ConfigError)
    assert error.value.seen == repr(name)


@pytest.mark.parametrize("name", ["a", "a/b", "..a", "a..b"])
def test_any_other_name_lies_in_its_folder(name: str, tmp_path: Path) -> None:
    assert files.inside(tmp_path, name, ConfigError) == tmp_path / name


def test_a_json_file_that_cannot_be_read_for_a_moment_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.json").write_text("{}")
    read, failures = Path.read_bytes, [OSError(errno.ESTALE, "Stale file handle")]

    def fails_first(path: Path) -> bytes:
        if failures:
            raise failures.pop()
        return read(path)

    monkeypatch.setattr(files, "_PAUSES_S", (0.0,))
    monkeypatch.setattr(Path, "read_bytes", fails_first)
    assert files.read_json(tmp_path / "state.json", ConfigError, "the state") == {}
