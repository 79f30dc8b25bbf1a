import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import run_command, user_error
from support.corpus import Corpus

from bigbird_ds.cli.main import main


@pytest.fixture
def folder(corpus: Corpus, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus.shards, tmp_path / "shards"))


@pytest.mark.parametrize("words", [[], ["--deep"]])
def test_an_intact_folder_passes(words: list[str], folder: Path) -> None:
    result = run_command("verify", folder, *words)
    assert result.returncode == 0, result.stderr.decode()
    assert f"{folder} is intact: 2 shards, 40 documents" in result.stdout.decode()


@pytest.mark.parametrize("name", ["verify", "inspect"])
def test_shards_are_looked_at_without_torch(name: str, folder: Path) -> None:
    probe = "import sys; from bigbird_ds.cli.main import main; code = main(sys.argv[1:]); "
    probe += "sys.exit(code or ('torch' in sys.modules))"
    words = [sys.executable, "-c", probe, name, str(folder)]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_every_damaged_file_is_named_in_one_message(folder: Path) -> None:
    tar = folder / "train-00000.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 4
    tar.write_bytes(data)
    (folder / "validation-00000.tar").write_bytes(b"cut short")
    (folder / "train-00000.sentences.npy").unlink()
    (folder / "train-00007.tar").touch()
    message = user_error("verify", folder)
    for line in (
        "train-00000.tar: the file is damaged",
        "validation-00000.tar: the file is truncated",
        "train-00000.sentences.npy: the file is missing",
        "train-00007.tar: not in the manifest",
    ):
        assert line in message


def test_other_folders_are_refused(tmp_path: Path) -> None:
    assert "unrecognized kind of folder" in user_error("verify", tmp_path)
    assert "unrecognized kind of folder" in user_error("inspect", tmp_path)
    assert "not a folder" in user_error("verify", tmp_path / "missing")


def test_a_tokenizer_is_verified_and_described(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(corpus.tokenizer, tmp_path / "tokenizer"))
    assert main(["verify", str(folder)]) == 0
    intact = f"{folder}: intact (a tokenizer of the bigbird family, 500 pieces)\n"
    assert capsys.readouterr().out == intact
    assert main(["inspect", str(folder)]) == 0
    assert "500 pieces, 101 special" in capsys.readouterr().out
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('" {2,}"', '" {9,}"'))
    assert main(["verify", str(folder)]) == 2
    assert "the two tokenizer files give different ids" in capsys.readouterr().err
    (folder / "spiece.model").unlink()
    assert main(["verify", str(folder)]) == 2
    assert f"no file {folder}/spiece.model" in capsys.readouterr().err


def test_an_unfinished_folder_says_how_to_resume(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / ".units").mkdir()
    message = user_error("verify", folder)
    assert message.startswith("error: the shards are incomplete\n")
    assert "--resume" in message


def test_inspect_describes_the_shards(folder: Path) -> None:
    result = run_command("inspect", folder)
    assert result.returncode == 0, result.stderr.decode()
    text = result.stdout.decode()
    for part in ("train: ", "validation: ", "characters per token", "tokenizer: 500 pieces"):
        assert part in text
    assert 'The "assert" statement' in text  # the beginning of a document, decoded
