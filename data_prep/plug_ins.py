"""A user's functions, named on the command line as ``module:function``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from bigbird_ds.errors import ConfigError


def load_function(name: str, option: str, others: str = "") -> Callable[..., Any]:
    """Import the function ``module:function``.

    Raises:
        ConfigError: it cannot be imported. ``others`` lists further values of ``option``.
    """
    module_name, colon, function_name = name.partition(":")
    seen = name
    if colon:
        try:
            function = getattr(importlib.import_module(module_name), function_name)
        except Exception as cause:  # the user's module may raise anything
            seen = f"{name}: {type(cause).__name__}: {cause}"
        else:
            if callable(function):
                return function
            seen = f"{name} is not a function"
    raise ConfigError(
        f"{option} is not a function",
        seen=seen,
        needed=f"{others}module:function, with the module on PYTHONPATH",
        change=option,
    )
