"""MLflow, through ``mlflow``; its own environment variables apply (``MLFLOW_TRACKING_URI``,
``MLFLOW_EXPERIMENT_NAME``). Without an address the store is ``RUN/mlflow.db``."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from bigbird_ds.training.trackers.tracker import PROJECT, TRACKERS, TrackedRun, Tracker, flat

DATABASE_NAME = "mlflow.db"
_RUN_ID_TAG = "bigbird_ds.run_id"
_PARAMETERS_AT_ONCE = 100  # most in a request
_LONGEST_PARAMETER = 500


@TRACKERS.add
class MLflow(Tracker):
    """An MLflow run with this run's id as a tag, by which a resume finds it.

    MLflow cannot take points back, so that steps which it has are not sent again after a resume.
    """

    name = "mlflow"
    module = "mlflow"
    extra = "bigbird-ds[mlflow]"

    def __init__(self, run: TrackedRun) -> None:
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        folder = run.folder.resolve()
        own_store = f"sqlite:///{folder / DATABASE_NAME}"
        address = os.environ.get("MLFLOW_TRACKING_URI") or own_store
        self._client = MlflowClient(tracking_uri=address)
        experiment = self._experiment(folder if address == own_store else None)
        found = self._client.search_runs([experiment], f"tags.`{_RUN_ID_TAG}` = '{run.run_id}'")
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {_RUN_ID_TAG: run.run_id}
            self._id = self._client.create_run(
                experiment, tags=tags, run_name=run.folder.name
            ).info.run_id
            self._log_parameters(run.config)
        self._client.log_text(self._id, run.config_text, "config.yaml")
        # Group of names -> the last step that MLflow has of it.
        self._last = {group: self._last_step(f"{group}/loss") for group in ("train", "eval")}
        self.place = f"run {self._id} in {address}"

    def _experiment(self, folder: Path | None) -> str:
        """Its id; created if it is new, with files in ``folder`` unless that is None."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = (folder / "mlflow").as_uri() if folder else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _log_parameters(self, config: dict[str, Any]) -> None:
        """As MLflow never changes a parameter, these are the config of the run's first start."""
        from mlflow.entities import Param

        found = [Param(key, str(value)[:_LONGEST_PARAMETER]) for key, value in flat(config).items()]
        for start in range(0, len(found), _PARAMETERS_AT_ONCE):
            self._client.log_batch(self._id, params=found[start : start + _PARAMETERS_AT_ONCE])

    def _last_step(self, name: str) -> int:
        return max(
            (point.step for point in self._client.get_metric_history(self._id, name)), default=-1
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        group = "eval" if any(name.startswith("eval/") for name in values) else "train"
        if step <= self._last[group]:
            return
        now = int(time.time() * 1000)
        points = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=points)
        self._last[group] = step

    def log_text(self, step: int, name: str, text: str) -> None:
        self._client.log_text(self._id, text, f"{name}/step-{step}.txt")

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")
