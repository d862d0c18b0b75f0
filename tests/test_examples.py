"""The Python examples in the documentation run as printed, each page in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, blocks

# CONTRIBUTING's blocks are pairs of good and bad lines; those of vmtest boot kernels.
LEFT_OUT = ("CONTRIBUTING.md", "vmtest.md")
PAGES = [d for d in DOCUMENTS if d.name not in LEFT_OUT and blocks(d, "python")]


def test_there_are_pages_with_examples() -> None:
    assert {page.name for page in PAGES} >= {"python-api.md", "permissions.md"}


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_examples_run(page: Path, tmp_path: Path) -> None:
    found = [b for b in blocks(page, "python") if "root" not in b.words or os.geteuid() == 0]
    if not found:
        pytest.skip("its examples need root")
    code = program(page, [block.text for block in found])
    assert run(code, tmp_path / "stderr") == 0, (tmp_path / "stderr").read_text()


def run(code: str, stderr: Path) -> int:
    """Run Python code and return its exit code; whatever it leaves running is killed."""
    with stderr.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
        )
        try:
            return process.wait(240)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def program(page: Path, examples: list[str]) -> str:
    """Return the examples one below the other, each at the line it has on the page."""
    text = page.read_text()
    lines = [""] * text.count("\n")
    for example in examples:
        first = text[: text.index(example)].count("\n")
        lines[first : first + example.count("\n")] = example.splitlines()
    return "\n".join(lines)
