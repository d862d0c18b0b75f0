"""Views in modules that are imported when they are first used: most commands need one of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def later(module: str, function: str) -> Callable[..., None]:
    """Return ``function`` of pagewalk.render.``module``, which is imported at the first call."""

    def write(*given: Any, **options: Any) -> None:
        getattr(importlib.import_module(f"pagewalk.render.{module}"), function)(*given, **options)

    return write
