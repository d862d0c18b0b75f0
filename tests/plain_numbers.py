"""Find where numpy looks up an attribute on an enum: a Ctrl-C during the lookup is lost.

numpy looks for ``__array_ufunc__`` and ``__array_function__`` on the type of each operand. For an
enum's type Python 3.11 runs Python code to find them, in which a signal handler may raise; numpy
takes any exception for "no such attribute". So columns are compared with, and filled from, plain
numbers: ``State.ANON.value``.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pagewalk

SOURCE = str(Path(pagewalk.__file__).parent)


@contextmanager
def watched(*, everywhere: bool = False) -> Iterator[set[str]]:
    """Collect each ``file:line: attribute`` in the source that makes numpy ask an enum's type.

    With ``everywhere``, those outside the source as well.
    """
    found: set[str] = set()
    before = vars(enum.EnumMeta).get("__getattr__")  # removed in Python 3.12

    def ask(cls: type, name: str) -> object:
        if name.startswith("__array_"):
            frame = sys._getframe(1)
            while frame.f_back and "/numpy/" in frame.f_code.co_filename:
                frame = frame.f_back
            if everywhere or frame.f_code.co_filename.startswith(SOURCE):
                file = frame.f_code.co_filename.removeprefix(SOURCE + "/")
                found.add(f"{file}:{frame.f_lineno}: {name} of {cls.__name__}")
        if before is None:
            raise AttributeError(name)
        return before(cls, name)

    enum.EnumMeta.__getattr__ = ask  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        if before is None:
            del enum.EnumMeta.__getattr__  # type: ignore[attr-defined]
        else:
            enum.EnumMeta.__getattr__ = before  # type: ignore[attr-defined]
