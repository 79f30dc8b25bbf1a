"""What ``bigbird-ds plot`` draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bigbird_ds.hub import curves
from bigbird_ds.hub.run_metrics import metrics_line


def test_each_loss_accuracy_and_rate_has_a_panel_with_both_runs_and_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tmp_path / "a", tmp_path / "b"]
    parts: dict[str, Any] = {"loss": 3.0, "mlm_loss": 2.0, "nsp_loss": 1.0}
    for run in runs:
        run.mkdir()
        lines = [
            {"step": 1, **parts, "lr": 0.1, "grad_norm": 1.0, "tokens_per_s": 9.0},
            {"step": 2, **parts, "lr": 0.2, "grad_norm": float("nan"), "tokens_per_s": 9.0},
        ]
        if run == runs[0]:
            lines.append({"step": 2, "eval_loss": 3.0, "eval_mlm_loss": 2.0})
            lines.append({"step": 2, "eval_mlm_accuracy": 0.5})
        (run / "metrics.jsonl").write_text("".join(map(metrics_line, lines)))
    drawn: dict[str, Any] = {}

    def keep(figure: Any, target: Path) -> None:
        for axes in figure.axes:
            names = [line.get_label().removeprefix(str(tmp_path)) for line in axes.get_lines()]
            if names:
                drawn[axes.get_title()] = names

    monkeypatch.setattr(curves, "save_figure", keep)
    curves.draw_curves(runs, tmp_path / "curves.png")
    both, evaluated = ["/a", "/b"], ["/a", "/a, validation", "/b"]
    assert drawn == {
        "Loss": evaluated,
        "MLM loss": evaluated,
        "NSP loss": both,
        "MLM accuracy": ["/a"],
        "Learning rate": both,
        "Gradient norm before clipping": both,
        "Throughput": both,
    }
