"""The kernel's text is bytes: no reader lets Python guess where a line or field ends.

``splitlines``, and ``split`` and ``strip`` without an argument, also take \\r, \\x0b, \\x0c, \\x1c
and more for structure, all of which may occur in a process's name. ``open`` as text, and
``decode``, fail on anything that is not UTF-8. proc/files.py has functions to use instead.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_layers import MODULES, tree

READERS = [
    m for m in MODULES
    if m.partition(".")[0] in ("proc", "kernel", "sources") or m == "account.swap_users"
]
CUTTERS = ("split", "rsplit", "strip", "lstrip", "rstrip")


def guesses(of: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of each call that leaves the structure of the text to Python."""
    for node in ast.walk(of):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, bytes) and rb"\s" in text:
            yield node.lineno, r"\s"  # the characters that split() takes for blanks
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        words += [key.value.value for key in node.keywords if isinstance(key.value, ast.Constant)]
        if isinstance(called, ast.Name) and called.id == "open":
            if not any("b" in word for word in words if isinstance(word, str)):
                yield node.lineno, "open as text"
        elif isinstance(called, ast.Attribute):
            if called.attr in ("splitlines", "read_text"):
                yield node.lineno, called.attr
            if called.attr in CUTTERS and (not node.args or None in words[:1]):
                yield node.lineno, called.attr
            if called.attr == "decode" and not node.args and "surrogateescape" not in words:
                yield node.lineno, called.attr


@pytest.mark.parametrize("module", READERS)
def test_no_reader_of_the_kernels_text_guesses(module: str) -> None:
    assert list(guesses(tree(module))) == []


@pytest.mark.parametrize("module", MODULES)
def test_no_code_guesses_where_lines_end(module: str) -> None:
    assert [what for _, what in guesses(tree(module)) if what == "splitlines"] == []


@pytest.mark.parametrize(
    "code",
    [
        "x.splitlines()", "x.split()", "x.split(None, 5)", "x.rsplit()", "x.strip()",
        "x.rstrip()", "x.lstrip(None)", "x.decode()", "x.decode(errors='replace')", "open(x)",
        "open(x, 'r')", "open(x, encoding='utf-8')", "re.compile(rb'a\\s+')", "x.read_text()",
    ],
)
def test_the_check_sees_each_way_to_guess(code: str) -> None:
    assert list(guesses(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "x.split(b' ')", "x.strip(b'\\t ')", "x.decode('utf-8', 'surrogateescape')",
        "open(x, 'rb')", "pagemap.flags_of(words)", "re.compile(rb'(?m)^a +\\n')",
    ],
)
def test_the_check_accepts_explicit_separators(code: str) -> None:
    assert list(guesses(ast.parse(code))) == []
