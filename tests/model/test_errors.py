"""Every error: its exit code, its place in the documented tree, and the form of its sentence."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import venv
from pathlib import Path

import pytest

from pagewalk.model import errors
from pagewalk.model.errors import (
    BadRecording,
    BadRequest,
    BadTable,
    BadTarget,
    BadText,
    GroupGone,
    NoAddressSpace,
    NoSuchCommand,
    NotInBtf,
    NotPermitted,
    NotRecorded,
    NotStarted,
    NotStopped,
    PackageMissing,
    PagewalkError,
    ProcessGone,
    SourceUnavailable,
    Unsupported,
)

SOURCE = Path(errors.__file__).parents[2]
SOURCES = sorted(Path(errors.__file__).parents[1].rglob("*.py"))

# README and --help document these for scripts.
EXIT_CODES = {
    "PagewalkError": 1, "BadTarget": 2, "BadRequest": 2, "ProcessGone": 5, "NoAddressSpace": 1,
    "NotPermitted": 6, "SourceUnavailable": 1, "BadTable": 1, "BadText": 1,
    "NotInBtf": 1, "Unsupported": 1, "NotStopped": 1, "GroupGone": 5,
    "PackageMissing": 1, "BadRecording": 1, "NotStarted": 126, "NoSuchCommand": 127,
    "NotRecorded": 1,
}
EXAMPLES = [
    BadTarget("no process is called 'x'", ((1, "init"),)),
    BadRequest("--range: 5-3 is empty"),
    ProcessGone(7, "ended"),
    GroupGone("/a/b"),
    NoAddressSpace(7, "is a zombie"),
    NotPermitted("cannot read /proc/1/maps", "permission denied", "run as root"),
    SourceUnavailable("kcore", "not built", "use another"),
    NotInBtf("struct folio"),
    BadTable("PMD", 0x1000, 0xBAD, "points outside RAM"),
    BadText("maps", 3, b"what"),
    Unsupported("PAGEMAP_SCAN", "6.7"),
    PackageMissing("a recording", "pyarrow"),
    BadRecording("a.pagewalk", "it is cut"),
    NotStarted("/etc", "permission denied", "give a program"),
    NoSuchCommand("make", "no such file or directory", "give its path"),
    NotRecorded("a.pagewalk", "the heap", "nobody asked for it", "record it with --heap"),
    NotStopped("process 7 did not stop within 5 s and has been resumed"),
]


def test_every_error_has_the_documented_exit_code() -> None:
    classes = {
        name: c.exit_code for name, c in vars(errors).items()
        if isinstance(c, type) and issubclass(c, PagewalkError)
    }
    assert classes == EXIT_CODES


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    rows = re.findall(r"^\s+(?:\+-- )?(\w+) +exit (\d+)", errors.__doc__ or "", re.MULTILINE)
    assert {name: int(code) for name, code in rows} == EXIT_CODES


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_a_sentence_starts_in_lower_case_and_has_no_full_stop(error: PagewalkError) -> None:
    assert not str(error)[0].isupper() or type(error) is BadTable  # which begins with PGD, PMD...
    assert not str(error).endswith(".")


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_an_errors_sentence_contains_its_arguments(error: PagewalkError) -> None:
    told = {k: v for k, v in vars(error).items() if k not in ("candidates", "level")}
    assert all(str(v) in str(error) or f"{v:#x}" in str(error) or f"{v:#018x}" in str(error)
               for v in told.values())


def raised_texts() -> list[tuple[str, str]]:
    """Return (place, text) of every string in a `raise` of one of our errors."""
    texts = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            name = getattr(node.exc.func, "id", "")
            if name in EXIT_CODES:
                texts += [
                    (f"{path.name}:{node.lineno}", part.value) for arg in node.exc.args
                    for part in ast.walk(arg)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
    return texts


def test_no_sentence_in_the_code_ends_with_a_full_stop() -> None:
    texts = raised_texts()
    assert len(texts) > 20
    assert [place for place, text in texts if text.endswith(".")] == []


def test_the_command_that_installs_a_package_is_one_that_this_python_has(tmp_path: Path) -> None:
    """`uv tool install` makes an environment without pip."""
    made = tmp_path / "an environment"
    venv.create(made)
    python = made / "bin" / "python"
    ask = "from pagewalk.model.errors import how_to_install; print(how_to_install('pyarrow'))"
    ran = subprocess.run([python, "-c", ask], env={"PYTHONPATH": str(SOURCE)}, check=True,
                         capture_output=True, text=True)
    assert shlex.split(ran.stdout) == ["uv", "pip", "install", "--python", str(python), "pyarrow"]
