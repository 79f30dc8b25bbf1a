"""matplotlib for the commands that draw; an optional dependency, imported on use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigbird_ds import files
from bigbird_ds.errors import ConfigError


def pyplot() -> Any:
    """``matplotlib.pyplot`` without a display.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError(
            "plotting needs matplotlib",
            seen="matplotlib is not installed",
            needed="the plot extra",
            change="pip install 'bigbird-ds[plot]'",
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def save_figure(figure: Any, target: Path) -> None:
    """Write a figure to ``target`` in the format of its suffix.

    Raises:
        ConfigError: matplotlib does not support the suffix, or the folder cannot be written.
    """
    formats = figure.canvas.get_supported_filetypes()
    if target.suffix[1:].lower() not in formats:
        raise ConfigError(
            "unknown image format",
            seen=str(target),
            needed="a file name that ends in .png, or in ." + ", .".join(sorted(formats)),
            change="--out",
        )
    files.make_folder(target.parent, ConfigError, "--out")
    figure.savefig(target, dpi=120)
