"""The Python examples of the documents run as they are printed, each page in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, blocks

# CONTRIBUTING's blocks are pairs of good and bad lines; those of vmtest boot kernels.
LEFT_OUT = ("CONTRIBUTING.md", "vmtest.md")
PAGES = [d for d in DOCUMENTS if d.name not in LEFT_OUT and blocks(d, "python")]


def test_there_are_pages_with_examples() -> None:
    assert {page.name for page in PAGES} >= {"python-api.md", "permissions.md"}


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_examples_run(page: Path) -> None:
    found = [b for b in blocks(page, "python") if "root" not in b.words or os.geteuid() == 0]
    if not found:
        pytest.skip("its examples need root")
    ran = subprocess.run(
        [sys.executable, "-c", program(page, [block.text for block in found])],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert ran.returncode == 0, f"{page.name}: {ran.stderr}"


def program(page: Path, examples: list[str]) -> str:
    """Return the examples one below the other, each at its own line of the page."""
    text = page.read_text()
    lines = [""] * text.count("\n")
    for example in examples:
        first = text[: text.index(example)].count("\n")
        lines[first : first + example.count("\n")] = example.splitlines()
    return "\n".join(lines)
