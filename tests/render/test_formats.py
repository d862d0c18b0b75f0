"""Rules for every view in every format."""

from __future__ import annotations

import importlib
import re

import pytest

from pagewalk.model.errors import BadRequest
from pagewalk.render import FORMATS, view
from tests.render import written
from tests.render.written import HOSTILE, Terminal, seen

VIEWS = {name: importlib.import_module(module).VIEWS for name, module in FORMATS.items()}
ALL_VIEWS = ("show", "groups", "maps", "pages", "explain", "heap", "vtop", "doctor", "processes",
             "ram", "files", "slab", "group", "trigger", "cgroups", "overview", "huge",
             "huge_of_each", "run")
PAIRS = [(name, view_name) for name in FORMATS for view_name in ALL_VIEWS
         if view_name in VIEWS[name]]
COLOUR = re.compile(r"\x1b\[(0|1|2|31|32)m")


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


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize(("format_name", "name"), PAIRS)
def test_no_view_can_drive_a_terminal(
    format_name: str, name: str, frames: bool
) -> None:
    told = written.write(format_name, name, Terminal(), frames=frames, names=HOSTILE)
    assert seen(COLOUR.sub("", told) if format_name == "text" else told)


@pytest.mark.parametrize(("format_name", "name"), [pair for pair in PAIRS if pair[0] != "csv"])
def test_text_for_people_never_shows_a_hostile_name(format_name: str, name: str) -> None:
    # CSV is for programs, and keeps names as they are unless it is on a terminal.
    assert seen(written.write(format_name, name, names=HOSTILE))


def test_a_name_cannot_forge_a_colour() -> None:
    for format_name in ("text", "csv"):
        told = written.write(format_name, "maps", Terminal(), names="\x1b[32m")
        assert "\x1b[32m" not in told and r"\x1b[32m" in told


def test_the_error_for_a_missing_view_names_the_formats_that_have_it() -> None:
    with pytest.raises(BadRequest, match="'doctor' cannot be written as csv; use one of: text,"
                       " json"):
        view("csv", "doctor")
