"""The first screen and its document."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from pagewalk.model.columns import Withheld
from pagewalk.render import view
from pagewalk.system.files import Deleted, Sort
from pagewalk.system.overview import FRAMES
from tests.files_by_hand import REPORT
from tests.render import written
from tests.render.test_formats import COLOUR
from tests.render.written import Terminal
from tests.share_by_hand import MIB, overview
from tests.system.by_hand import ram


def screen(out: io.StringIO | None = None, *, human: bool = False, **changed: Any) -> str:
    out, found = out or io.StringIO(), overview(**changed)
    view("text", "overview", human)(found, found.rows, out)
    return out.getvalue()


def test_the_first_line_is_all_of_ram_in_six_rows() -> None:
    found = re.findall(r"(\w[\w ]*?) (\d+) KiB", screen().split("\n\n")[0].replace("\n ", ""))
    total, rows = re.match(r"\d+", screen()), [int(amount) for _, amount in found[:6]]
    assert [title for title, _ in found[:6]] == [
        "processes", "files in cache", "shared memory", "kernel", "free",
        "kept by the kernel at boot"]
    assert total is not None and sum(rows) == int(total[0])


def test_the_oddest_thing_is_said_else_what_could_be_reclaimed() -> None:
    assert "4096 KiB are hugetlb pages that were set aside" in screen().split("\n\n")[0]
    usual = ram()
    parts = {name: 4096 for name in (usual.parts or {}) if name != "hugetlb_idle"}
    said = screen(ram=usual._replace(parts=parts, total=1 << 40, deleted=None))
    assert "could be reclaimed at once" in said.split("\n\n")[0]
    largest = next(file for file in REPORT.files if file.sort is Sort.DELETED)
    found = ram()
    deleted = Deleted(1, largest.amounts._replace(cached=found.total or 0), largest)
    said = screen(ram=found._replace(deleted=deleted)).split("\n\n")[0]
    assert "are one deleted file" in said and "could be reclaimed" not in said


def test_a_process_is_a_line_with_how_it_was_started() -> None:
    assert re.search(r"(?m)^PID +USS +PSS +RSS +SWAP +COMMAND$", screen())
    assert re.search(r"(?m)^ 10 +12288 +25600 +61440 +0 +server --quick$", screen())
    # Not walked, and its command line is empty.
    assert re.search(r"(?m)^  9 +n/a +n/a +1024 +n/a +small$", screen())


def test_what_all_hold_together_is_beside_the_sum_of_their_rss() -> None:
    said = " ".join(screen().split())
    assert ("All processes together, this one too, hold 81920 KiB, each page counted once;"
            " the RSS of 4 of them adds up to 164864 KiB.") in said
    assert "1 process with an RSS of 1024 KiB was not walked, to be quick" in said
    assert "not walked" not in screen(left=())
    assert "processes together, the one that recorded them too, hold" in " ".join(
        screen(recorded=True).split())


def test_what_was_not_looked_at_to_be_quick_is_said_and_what_another_source_tells_is_not() -> None:
    said = screen(withheld=(Withheld(FRAMES, "1 s are not enough"), Withheld("a source", "no")))
    assert "n/a: what each frame is used for: 1 s are not enough" in said
    assert "a source" not in said


def test_who_may_not_see_frames_gets_a_list_by_rss_and_is_told_why() -> None:
    hidden = Withheld("what processes hold", "run as root", partial=True)
    said = screen(frames=False, withheld=(hidden,), ram=ram(frames=False))
    assert re.search(r"(?m)^PID +RSS +COMMAND$", said)
    assert "4 processes; RSS counts a shared page in each of them, and adds up to 164864" in said
    assert "partial: what processes hold: run as root" in said


def test_on_a_terminal_it_ends_with_what_to_try_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = screen(Terminal(), human=True).splitlines()
    assert [re.split("  +", line.removeprefix("next:").strip())[0] for line in lines[-3:]] == [
        "pagewalk 10", "pagewalk ram", "pagewalk top"]
    assert "pagewalk doctor" in screen(Terminal(), frames=False)
    assert "next:" not in screen()


def test_a_narrow_terminal_gets_the_beginning_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    found = overview()
    rows = [found.rows[0]._replace(command="/opt/x/server " + "--option " * 20)]
    out = Terminal()
    view("text", "overview")(found, rows, out)
    assert re.search(r"(?m) server --[ option-]*~$", out.getvalue())
    assert all(len(COLOUR.sub("", line)) <= 60 for line in out.getvalue().splitlines())


def test_the_document_has_all_of_it() -> None:
    found = json.loads(written.write("json", "overview"))
    assert sum(found["rows"].values()) == found["total"]
    assert (found["held"], found["rss_sum"], found["pss_sum"]) == (80 * MIB, 161 * MIB, 67 * MIB)
    assert found["not_walked"] == {"processes": 1, "rss": MIB}
    assert found["processes"][0] == {
        "pid": 10, "rss": 60 * MIB, "uss": 12 * MIB, "pss": 25 * MIB, "swap": 0, "name": "server",
        "argv0": "/srv/server", "uid": 1000, "script": "", "command": "/srv/server --quick"}
    less = json.loads(written.write("json", "overview", frames=False))
    assert less["pss_sum"] is less["processes"][0]["uss"] is None
    assert less["rss_sum"] == 161 * MIB
