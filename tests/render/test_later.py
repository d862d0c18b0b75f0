"""A view is imported when it is used, and every one that is named exists."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from pagewalk.render import FORMATS, later

LAZY = [
    (module, function.value, source.name)
    for source in Path(later.__file__ or "").parent.glob("*.py")
    for node in ast.walk(ast.parse(source.read_text()))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "later"
    for module, function in [(node.args[0].value, node.args[1])]  # type: ignore[attr-defined]
]


@pytest.mark.parametrize(("module", "function", "source"), LAZY)
def test_what_is_named_is_there(module: str, function: str, source: str) -> None:
    assert callable(getattr(importlib.import_module(f"pagewalk.render.{module}"), function))
    assert source.removesuffix(".py") in FORMATS


def test_nothing_is_imported_before_it_is_used() -> None:
    script = (f"import sys, pagewalk.render.text, pagewalk.render.json;"
              f" print([m for m in {sorted({module for module, *_ in LAZY})!r}"
              f" if 'pagewalk.render.' + m in sys.modules])")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
