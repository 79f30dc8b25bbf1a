"""``bigbird-ds report``: one page that says everything about a run, and loads nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.processes import REPOSITORY

from bigbird_ds.cli.main import main
from bigbird_ds.hub.run_metrics import metrics_line
from bigbird_ds.report.page import report
from bigbird_ds.report.time_spent import time_spent
from bigbird_ds.training.config.file import dump_run_config, load_with_origins

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HOLD_THE_LOCK = """
import sys
from bigbird_ds import files
stream = open(sys.argv[1], "w")
files.lock(stream)
print("locked", flush=True)
sys.stdin.read()
"""
EVIL = "<script>alert(1)</script>\"'&\x1b[31m\ud800"


class Reader(HTMLParser):
    """The text, the names of the elements, and the addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.names, self.addresses = "", [""], [""]
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def lines(steps: int, loss: float, **more: Any) -> list[dict[str, Any]]:
    """Metrics as a run writes them, each 10 steps, with an evaluation in the middle."""
    found: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        measured = {"loss": loss + 0.7, "mlm_loss": loss, "nsp_loss": 0.7, "lr": 1e-3}
        speed = {"tokens_per_s": 2048.0, "step_s": 0.5, "data_share": 0.2, "memory_gib": 0.5}
        values = {"step": step, **measured, "grad_norm": 1.5, "tokens": 9 * step, **speed}
        found.append({**values, "time": 1e9 + 0.6 * step, **more})
        if step == 20:
            found.append({"step": step, "eval_loss": 5.5, "eval_mlm_accuracy": 0.25})
    return found


def make_run(folder: Path, metrics: list[dict[str, Any]], *overrides: str) -> Path:
    """A run folder as a run leaves it."""
    (folder / "checkpoints" / "step-20").mkdir(parents=True)
    (folder / "checkpoints" / "step-20" / "model.safetensors").write_bytes(bytes(3_000_000))
    config = load_with_origins("configs/run/tiny_cpu.yaml", [*overrides, "optimizer.lr=2e-3"])
    (folder / "config.yaml").write_text(dump_run_config(*config), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(map(metrics_line, metrics)) + '{"step": 4')
    (folder / "environment.json").write_text(json.dumps({"torch": "2.99.0", "hosts": ["node7"]}))
    return folder


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that ended at step 30 of 50."""
    run = make_run(tmp_path / "run", lines(30, 6.0))
    place = {"before": "the capital of", "target": "France", "predicted": "Spain", "after": EVIL}
    text = {"target": "A summary.", "prediction": EVIL}
    records = [{"step": step, "samples": [{"masked": [place]}, text]} for step in (10, 20)]
    (run / "samples.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    return run


def test_the_page_has_every_part_of_a_run(folder: Path) -> None:
    page = Reader(report([folder]))
    assert "stopped or failed: step 30 of 50" in page.text
    for chart in ("Loss", "MLM loss", "NSP loss", "Learning rate", "Gradient norm", "Throughput"):
        assert f"{chart} (" in page.text
    assert page.names.count("svg") == 8  # and memory, and the accuracy of the evaluation
    assert "validation" in page.text and "eval_mlm_accuracy0.25" in page.text
    assert "optimizer.lr0.002command line" in page.text
    assert "train.steps50configs/run/tiny_cpu.yaml" in page.text
    assert "optimizer.eps1e-06default" in page.text
    assert "step-203.0 MB" in page.text
    assert "torch2.99.0" in page.text and "node7" in page.text
    assert "no folder work/shards here" in page.text
    assert page.text.index("after step 20") < page.text.index("after step 10")
    assert "the capital of Spain France" in page.text and "A summary." in page.text


def test_the_loss_of_gap_sentences_has_a_title_in_words(tmp_path: Path) -> None:
    page = Reader(report([make_run(tmp_path / "run", lines(20, 6.0, target_loss=6.0))]))
    assert "Target loss (" in page.text and "MLM loss (" in page.text


def test_the_page_loads_nothing_and_what_a_run_wrote_stays_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a<b>'\"", lines(30, 6.0), "output='<i>o</i>'")
    (run / "samples.jsonl").write_text(
        json.dumps({"step": 20, "samples": [{"target": EVIL, "masked": EVIL}, EVIL]}) + "\n"
    )
    (run / "environment.json").write_text(json.dumps({EVIL: [EVIL]}))
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert not {"script", "i", "b>", "link", "img", "iframe", "object"} & set(page.names)
    assert all(address.startswith("#") for address in page.addresses[1:])
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert "\x1b" not in text and "<script>alert(1)</script>" in page.text
    assert "default-src 'none'" in page.text or "default-src &#x27;none&#x27;" in text


def test_runs_side_by_side_share_charts_and_the_rows_that_differ_are_marked(
    folder: Path, tmp_path: Path
) -> None:
    other = make_run(tmp_path / "other", lines(50, 4.0), "optimizer.weight_decay=0.5")
    text = report([folder, other])
    page = Reader(text)
    assert page.names.count("svg") == 8
    assert f"{folder}, training" in page.text and f"{other}, training" in page.text
    assert "done: step 50 of 50" in page.text
    marked = [row for row in text.split("<tr") if 'class="differs"' in row]
    assert [row.split("<td>")[1].partition("<")[0] for row in marked] == ["optimizer.weight_decay"]


def test_a_run_that_has_just_begun_has_a_page_and_a_running_one_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [])
    (run / "metrics.jsonl").unlink()
    (run / "environment.json").unlink()
    shutil.rmtree(run / "checkpoints")
    words = [sys.executable, "-c", HOLD_THE_LOCK, str(run / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
        assert "running: step 0 of 50" in (text := Reader(report([run])).text)
        holder.communicate()
    assert "No step was logged yet." in text and "None was saved yet." in text
    assert "not running" in Reader(report([run])).text


def test_a_loss_that_is_not_finite_breaks_the_line(tmp_path: Path) -> None:
    metrics = lines(50, 6.0)
    metrics[3]["loss"] = float("nan")
    text = report([make_run(tmp_path / "run", metrics)])
    loss = text.split("<svg")[1].partition("</svg>")[0]
    assert loss.partition(' d="')[2].partition('"')[0].count("M") == 2
    assert "nan" not in loss


def test_the_time_is_divided_into_steps_data_and_the_rest() -> None:
    spent = time_spent([line for line in lines(50, 6.0) if "loss" in line])
    computing, waiting, rest = spent.values()
    assert (computing, waiting) == pytest.approx((20.0, 5.0))
    assert rest == pytest.approx(0.1 * 40)  # 0.6 s a step by the clock, 0.5 s in steps


@pytest.mark.parametrize("name", ["nothing", "empty", "damaged"])
def test_a_folder_without_a_run_is_a_user_error(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.yaml").write_text("a: [\n")
    assert main(["report", str(tmp_path / name)]) == 2
    assert "error: not a run folder" in (said := capsys.readouterr().err)
    assert str(tmp_path / name / "config.yaml") in said


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_the_page_in_light_and_dark(
    scheme: str, folder: Path, tmp_path: Path
) -> None:
    image = pytest.importorskip("matplotlib.image")
    (tmp_path / "page.html").write_bytes(report([folder]).encode(errors="backslashreplace"))
    words = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,900"]
    words += ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    words += [f"--screenshot={tmp_path / 'page.png'}", f"file://{tmp_path}/page.html"]
    done = subprocess.run(words, capture_output=True, timeout=120, check=False)
    assert (tmp_path / "page.png").is_file(), done.stderr.decode(errors="replace")
    pixels = np.round(255 * image.imread(tmp_path / "page.png")[..., :3]).astype(int)
    page, line = {
        "light": ((255, 255, 255), (0, 114, 178)),
        "dark": ((23, 25, 28), (86, 180, 233)),
    }[scheme]
    assert tuple(pixels[2, 2]) == page
    drawn = (pixels == line).all(axis=-1)
    rows = np.flatnonzero(drawn.any(axis=1))
    assert drawn.sum() > 300 and rows.max() - rows.min() > 200  # the lines of several charts
