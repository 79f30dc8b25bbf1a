"""MLflow with a store in the run folder, as its own client reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="the mlflow extra is not installed")


def test_one_run_with_config_and_true_steps_without_doubles_after_a_resume(
    stopped_and_resumed: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    stopped_and_resumed("mlflow")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("bigbird-ds")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["bigbird_ds.run_id"] == (tmp_path / "run_id").read_text().strip()
    assert run.data.params["optimizer.lr"] == "0.25" and run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [
        (step, 10.0 * step) for step in (1, 2, 3, 4)
    ]
    (evaluation,) = client.get_metric_history(run.info.run_id, "eval/loss")
    assert (evaluation.step, evaluation.value) == (3, 7.0)
    assert (tmp_path / "mlflow" / run.info.run_id / "artifacts" / "config.yaml").is_file()
