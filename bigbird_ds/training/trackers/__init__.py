"""Experiment trackers: TensorBoard, Weights & Biases and MLflow, each through its own library."""

from bigbird_ds.training.trackers import mlflow, tensorboard, wandb  # noqa: F401 (adds them)
from bigbird_ds.training.trackers.sender import Sender, close_all, open_trackers
from bigbird_ds.training.trackers.tracker import TRACKERS, check_trackers

__all__ = ["TRACKERS", "Sender", "check_trackers", "close_all", "open_trackers"]
