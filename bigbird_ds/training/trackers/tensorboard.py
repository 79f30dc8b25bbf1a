"""TensorBoard: events in ``RUN/tensorboard``."""

from __future__ import annotations

import contextlib
from typing import Any

from bigbird_ds.training.trackers.tracker import TRACKERS, TrackedRun, Tracker, flat

FOLDER_NAME = "tensorboard"


@TRACKERS.add
class TensorBoard(Tracker):
    """Scalars, the config as text and as hyperparameters, sample predictions as text.

    On a resume, TensorBoard hides what earlier files have of later steps.
    """

    name = "tensorboard"
    module = "tensorboard"
    extra = "tensorboard"

    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self._purge_step: int | None = run.steps_done + 1
        self._writer: Any = None
        self.place = str(run.folder / FOLDER_NAME)

    def log(self, step: int, values: dict[str, float]) -> None:
        def write(writer: Any) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        self._write(write)

    def log_text(self, step: int, name: str, text: str) -> None:
        self._write(lambda writer: writer.add_text(name, _as_code(text), step))

    def close(self, failed: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()

    def _write(self, write: Any) -> None:
        try:
            if self._writer is None:
                self._writer = self._open()
            write(self._writer)
            self._writer.flush()
        except Exception:
            # Its thread ended with the first error; the next record opens another file.
            self.close(failed=True)
            raise

    def _open(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        purge, self._purge_step = self._purge_step, None
        writer = SummaryWriter(self.place, purge_step=purge)
        run = self._run
        writer.add_text("config", _as_code(run.config_text), run.steps_done)
        # Not add_hparams, which opens a second run.
        for summary in hparams(flat(run.config), {"train/loss": 0.0, "eval/loss": 0.0}):
            writer._get_file_writer().add_summary(summary)
        return writer


def _as_code(text: str) -> str:
    """Text as a Markdown code block, so that its lines and marks stay as they are."""
    return "\n".join(f"    {line}" for line in text.splitlines())
