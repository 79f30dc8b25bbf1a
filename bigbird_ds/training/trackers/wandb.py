"""Weights & Biases, through ``wandb``; its own environment variables apply (``WANDB_PROJECT``,
``WANDB_ENTITY``, ``WANDB_MODE``)."""

from __future__ import annotations

import html
import os
from typing import Any

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.trackers.tracker import PROJECT, TRACKERS, TrackedRun, Tracker

_ONLINE = ("online", "run", "shared")


@TRACKERS.add
class WeightsAndBiases(Tracker):
    """A W&B run with the id of this run, which a resume continues.

    W&B takes no point of an earlier step than its last, so that a resume doubles none.
    """

    name = "wandb"
    module = "wandb"
    extra = "bigbird-ds[wandb]"

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        # Its file of console output would have every line twice; "silent": it writes to stderr.
        settings = wandb.Settings(console="off", silent=True)
        self._wandb = wandb
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.run_id,
            name=os.environ.get("WANDB_NAME", run.folder.name),
            resume="allow",
            dir=str(run.folder),
            config=run.config,
            settings=settings,
        )
        is_online = self._run.settings.mode in _ONLINE
        self.place = str(self._run.url if is_online else self._run.settings.sync_dir)

    @classmethod
    def check(cls) -> None:
        """Check that the library is there and has a key, as it would ask for one on a terminal.

        Raises:
            ConfigError: it is not, or has none.
        """
        super().check()
        import wandb

        settings = wandb.setup().settings
        if settings.mode not in _ONLINE:
            return
        if wandb.login(prompt=False, verify=False):
            return
        raise ConfigError(
            "W&B has no API key",
            seen="train.trackers includes wandb; no WANDB_API_KEY, no login",
            needed="`wandb login` or WANDB_API_KEY on the host of rank 0; or WANDB_MODE=offline",
            change="the environment, or train.trackers without wandb",
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def log_text(self, step: int, name: str, text: str) -> None:
        page = self._wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)
        self._run.log({name: page}, step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
