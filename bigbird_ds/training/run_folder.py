"""The run folder: what stands in it beside checkpoints and metrics."""

from __future__ import annotations

from pathlib import Path

from bigbird_ds import files
from bigbird_ds.errors import ConfigError
from bigbird_ds.hub.checkpoints import RUN_CONFIG_NAME, TOKENIZER_FOLDER
from bigbird_ds.hub.tokenizer_files import copy_tokenizer
from bigbird_ds.training.config import RunConfig
from bigbird_ds.training.config_file import dump_run_config


def write_run_folder(output: Path, config: RunConfig) -> None:
    """The resolved config and the tokenizer, so that the run folder stands on its own."""
    files.make_folder(output, ConfigError, "output")
    with files.atomic_write(output / RUN_CONFIG_NAME) as stream:
        stream.write(dump_run_config(config).encode())
    target = output / TOKENIZER_FOLDER
    if Path(config.data.tokenizer).resolve() != target.resolve():
        copy_tokenizer(Path(config.data.tokenizer), target)
