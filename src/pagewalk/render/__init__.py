"""The output formats: FORMATS names a module for each, whose VIEWS are what it can write.

Takes results: tables, pages, ledgers, translations, checks.
Gives text, JSON, CSV or log lines on a stream.
Not here: computing a number, and opening anything.

To add a format, add a file here with a VIEWS dict and a row in FORMATS. Every view takes the
results and, last, a text stream, and computes nothing but layout.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from pagewalk.model.errors import BadRequest
from pagewalk.render.amounts import STYLE, Style
from pagewalk.render.terminal import Screen

FORMATS = {name: f"pagewalk.render.{name}" for name in ("text", "json", "csv", "log")}

LONG = 100_000 << 10  # bytes; more than five digits of KiB


def view(
    format_name: str, name: str, human: bool | None = None, color: str = "auto"
) -> Callable[..., None]:
    """Return the function that writes view ``name``; raises BadRequest where there is none.

    ``human``: amounts in K, M and G, or in KiB; None: whatever is easier to read on a terminal.
    ``color``: auto, always or never.
    """
    module = importlib.import_module(FORMATS[format_name])
    views: dict[str, Callable[..., Any]] = module.VIEWS
    if name not in views:
        have = ", ".join(f for f in FORMATS if name in importlib.import_module(FORMATS[f]).VIEWS)
        raise BadRequest(f"'{name}' cannot be written as {format_name}; use one of: {have}")
    largest = getattr(module, "LARGEST", {}).get(name)
    return shown(views[name], format_name, human, largest, color)


def shown(
    write: Callable[..., None],
    format_name: str,
    human: bool | None = None,
    largest: Callable[..., int] | None = None,
    color: str = "auto",
) -> Callable[..., None]:
    # All output passes through here. Text is meant for people wherever it goes; the other formats
    # write names unchanged to a file or a pipe.
    def on_screen(*given: Any, **options: Any) -> None:
        *results, out = given
        large = human is None and out.isatty() and largest and largest(*results) >= LONG
        style = STYLE.set(Style(bool(human or large), grouped=out.isatty(), color=color))
        if format_name == "text" or out.isatty():
            out = Screen(out, colours=format_name == "text")
        try:
            write(*results, out, **options)
        finally:
            STYLE.reset(style)

    return on_screen
