"""The notebooks run from a checkout, from documents to guesses of the exported model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.processes import REPOSITORY, TIMEOUT_S, environment

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.mark.launch
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="executing notebooks needs nbclient")
    nbclient = pytest.importorskip("nbclient", reason="executing notebooks needs nbclient")
    pytest.importorskip("ipykernel", reason="executing notebooks needs ipykernel")
    pytest.importorskip("transformers", reason="the last cells predict with transformers")
    pytest.importorskip("matplotlib", reason="the notebooks show curves")
    for name in ("launch", "configs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    short = {"STEPS": "2", "IPYTHONDIR": str(tmp_path / "ipython")}
    for name, value in environment(**short).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=":")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # an error of a cell is raised

    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "step 2/2" in printed
    assert "attention backend: gathered" in printed
    assert "checked: transformers" in printed
    assert "the most frequent token" in printed
    assert printed.rstrip().rpartition("\n")[2].strip().startswith(tuple("0123456789"))
    (export,) = (tmp_path / "work").glob("*/export")
    assert (export / "model.safetensors").is_file()


def test_notebooks_are_stored_without_output() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path
