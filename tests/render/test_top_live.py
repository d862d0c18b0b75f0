"""The screen of `top` that obeys keys."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from pagewalk.model.errors import SourceUnavailable
from pagewalk.render import top_live
from pagewalk.render.columns import choose
from pagewalk.render.top_live import Again, Live, Quit, State
from tests.render.test_formats import COLOUR
from tests.render.written import HOSTILE, Terminal, seen, spoiled
from tests.share_by_hand import top


class Typed:
    """A keyboard on which ``keys`` are pressed next."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def wait(self, seconds: float) -> bool:
        """Return that the window is as it was."""
        del seconds
        return False

    def pressed(self) -> list[str]:
        """Return the keys."""
        found, self.keys = self.keys, []
        return found

    def take(self) -> None:
        """Do nothing."""

    give_back = take


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Live:
    """Return the screen of three processes in a window with 12 lines for them."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(top_live, "height", lambda _: 16)
    keyboard: Any = Typed()
    found = Live(keyboard, Terminal(), State("process", choose("top", None, "uss"), None), "never")
    found(top())
    return found


def press(live: Live, *keys: str) -> list[str]:
    """Return the lines of the screen after some keys."""
    keyboard: Any = live._keyboard
    keyboard.keys = [*keys]
    live.wait(1)
    return lines_of(live)


def lines_of(live: Live) -> list[str]:
    out: Any = live._out
    said = out.getvalue().rpartition("\x1b[H")[2].replace("\x1b[K", "").removesuffix("\x1b[J")
    return [line for line in said.split("\n") if line]


def test_it_points_at_a_line_and_says_the_keys_at_the_bottom(live: Live) -> None:
    lines = lines_of(live)
    assert lines[0].startswith("3 processes: USS adds up to 24M, PSS")
    assert re.match(" +PID +USS +SHARE +PSS +RSS +SWAP +GROWN +NAME$", lines[2])
    assert [line[:4] for line in lines[3:6]] == [">  1", "   1", "   1"]
    assert lines[-1] == ("q quit  s sort: uss  b by: process  h units  Enter more"
                         "  arrows: 1-3 of 3")


def test_arrows_point_at_another_line_and_stop_at_the_ends(live: Live) -> None:
    def pointed(*keys: str) -> str:
        return next(line for line in press(live, *keys) if line.startswith(">")).split()[1]

    assert [pointed(*keys) for keys in (("down",), ("j", "j", "j"), ("k",), ("home",), ("end",),
                                        ("up",), ("page up",), ("page down",))] == [
        "12", "11", "12", "10", "11", "12", "10", "11"]


def test_more_lines_than_fit_are_scrolled() -> None:
    state = State("process", choose("top"), None)
    shown = []
    for step in (0, 1, 3, 1, 4, -1, -1, -3, -9, 99):
        state.at += step
        state.fit(10, 4)
        shown.append((state.first, state.at))
    assert shown == [(0, 0), (0, 1), (1, 4), (2, 5), (6, 9), (6, 8), (6, 7), (4, 4), (0, 0), (6, 9)]
    state.fit(2, 4)  # most of them have ended
    assert (state.first, state.at) == (0, 1)
    state.fit(0, 4)
    assert (state.first, state.at) == (0, 0)


def test_s_sorts_by_the_next_column_and_has_its_bars(live: Live) -> None:
    orders = []
    for _ in range(5):
        lines = press(live, "s")
        found = re.search("s sort: (\\w+)", lines[-1])
        assert found is not None
        orders.append(found[1])
        before = lines[2].split()[lines[2].split().index("SHARE") - 1]
        assert before == (found[1].upper() if found[1] != "grown" else "USS")
    assert orders == ["pss", "rss", "swap", "grown", "uss"]


def test_b_groups_what_was_walked_already(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise SourceUnavailable("memory cgroups", "there are none", "")

    monkeypatch.setitem(top_live.BY, "cgroup", refuse)
    monkeypatch.setattr("pagewalk.system.top.BY", top_live.BY)
    assert "PROGRAM" in press(live, "b")[2]
    assert "USER" in press(live, "b")[2]
    keyboard: Any = live._keyboard
    keyboard.keys = ["b"]  # past cgroups, which there are none of
    assert live.wait(1)  # only another walk tells
    assert not live.wait(0)
    lines = lines_of(live)
    assert "USER" in lines[2] and lines[-1].endswith("b by: mapping  h units  Enter more"
                                                     "  walking ...")
    assert "PID" in press(live, "b")[2]


def test_during_a_round_keys_are_obeyed_and_a_walk_for_nothing_is_ended(live: Live) -> None:
    keyboard: Any = live._keyboard
    keyboard.keys = ["down"]
    live.attend()
    assert live.state.at == 1
    keyboard.keys = ["b"] * 4
    with pytest.raises(Again):
        live.attend()
    for key in ("q", "gone"):
        keyboard.keys = [key]
        with pytest.raises(Quit):
            live.attend()


def test_h_changes_the_units_and_capital_k_is_kib(live: Live) -> None:
    assert "12M" in lines_of(live)[3]
    assert "12 288" in press(live, "h")[3]
    assert "12M" in press(live, "h")[3]
    assert "12 288" in press(live, "K")[3] and "12 288" in press(live, "K")[3]


def test_enter_shows_how_a_process_was_started_and_what_to_run_next(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_live, "command_of", lambda pid: f"/srv/server {pid}\x1b[2J")
    lines = press(live, "enter")
    assert lines[-3:-1] == ["10: /srv/server 10\\x1b[2J", "next: pagewalk 10"]
    assert press(live, "b")[-2] == "next: pagewalk share server"
    assert not any("next:" in line for line in press(live, "enter"))


def test_the_screen_that_stays_has_neither_pointer_nor_keys(live: Live) -> None:
    out: Any = live._out
    live.screen.leave()
    left = out.getvalue().rpartition("\x1b[?1049l")[2]
    assert "3 processes" in left and "q quit" not in left and ">" not in left


def test_no_name_can_drive_the_terminal(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_live, "command_of", lambda _: HOSTILE)
    live(spoiled(top(), HOSTILE))
    for key in ("enter", "b", "b", "b"):
        lines = press(live, key)
        assert all(seen(COLOUR.sub("", line)) for line in lines)
    assert os.environ["TERM"] == "xterm"
