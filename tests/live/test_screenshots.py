"""The pictures of docs/screenshots are what scripts/screenshots.py makes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, drawn
from tests.live.command import run
from tests.machine import IN_GUEST
from tests.test_readme import SCREENSHOTS, labels

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(IN_GUEST, reason="the pictures are taken on the host"),
]


def test_the_script_makes_the_pictures_that_are_shown(tmp_path: Path) -> None:
    ran = run(sys.executable, "-m", "scripts.screenshots", tmp_path, cwd=ROOT)
    assert (ran.code, ran.out) == (0, ""), ran.err
    made, shown = (
        {path.name: drawn(path) for path in folder.iterdir()} for folder in (tmp_path, SCREENSHOTS)
    )
    assert {name: title for name, (title, _) in made.items()} == {
        name: title for name, (title, _) in shown.items()
    }
    assert labels(made["show-dark.svg"][1]) == labels(shown["show-dark.svg"][1])
    for name, (_, text) in made.items():
        assert headings(text) == headings(shown[name][1]) != []
    assert all("Traceback" not in text for _, text in made.values())


def headings(text: str) -> list[list[str]]:
    """Return the words of the lines above the tables of a screen."""
    return [line.split() for line in text.splitlines() if re.fullmatch(r" *[A-Z]{3,}[A-Z ]+", line)]
