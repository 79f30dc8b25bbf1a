"""matplotlib, for the commands that draw: an extra, imported when a picture is asked for."""

from __future__ import annotations

from typing import Any

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
            "drawing needs matplotlib",
            seen="matplotlib is not installed",
            needed="the plot extra",
            change="pip install 'bigbird-ds[plot]'",
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot
