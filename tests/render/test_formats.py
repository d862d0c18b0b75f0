"""What holds for every view of every format."""

from __future__ import annotations

import importlib
import re

import pytest

from pagewalk.errors import BadRequest
from pagewalk.render import FORMATS, view
from tests.render import written

VIEWS = {name: importlib.import_module(module).VIEWS for name, module in FORMATS.items()}
ALL_VIEWS = ("show", "maps", "pages", "explain", "vtop", "doctor", "processes")
PAIRS = [(name, view_name) for name in FORMATS for view_name in ALL_VIEWS
         if view_name in VIEWS[name]]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def test_text_and_json_write_every_view() -> None:
    assert set(ALL_VIEWS) <= set(VIEWS["text"])
    assert set(ALL_VIEWS) <= set(VIEWS["json"])


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize(("format_name", "name"), PAIRS)
def test_a_view_is_whole_lines(format_name: str, name: str, frames: bool) -> None:
    text = written.write(format_name, name, frames=frames)
    assert text.endswith("\n")
    assert text.strip()


@pytest.mark.parametrize(("format_name", "name"), PAIRS)
def test_no_colours_off_a_terminal(format_name: str, name: str) -> None:
    assert "\x1b[0m" not in written.write(format_name, name)


@pytest.mark.parametrize(("format_name", "name"), [pair for pair in PAIRS if pair[0] != "csv"])
def test_no_name_can_send_control_characters(format_name: str, name: str) -> None:
    # The hand-made process, VMA and list of processes all have an escape sequence in a name. CSV
    # is for programs, and keeps names as they are.
    assert CONTROL.search(written.write(format_name, name)) is None


def test_a_missing_view_names_the_formats_that_have_it() -> None:
    with pytest.raises(BadRequest, match="'doctor' cannot be written as csv; it can as text, json"):
        view("csv", "doctor")
