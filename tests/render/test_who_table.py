"""The screen and the document of `who`."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from pagewalk.render import who_table
from pagewalk.system.mappers import REVERSE_MAP
from tests.render import written
from tests.share_by_hand import MIB, who


def screen(shown: int = 2, **changed: Any) -> str:
    out, found = io.StringIO(), who(**changed)
    who_table.text(found, found.mappers[:shown], out)
    return out.getvalue()


def test_a_page_is_told_with_who_maps_it_and_who_is_charged() -> None:
    text = screen(of_file=False)
    assert text.startswith(
        "frame 0x1234 (flags: lru, mmap) is mapped twice.\n"
        "2 mappings in 2 processes were found, which are all of them.\n"
        "/app is charged for it, or a removed cgroup that was below.\n"
        "It is on NUMA node 0.\n")
    assert re.search(r"(?m)^PID +ADDRESS +PERM +OFFSET +NAME +MAPPING$", text)
    assert re.search(r"(?m)^ 11 +7f0000001000 +r--p +1000 +worker +/lib/x.so$", text)


@pytest.mark.parametrize(("mapcount", "said"), [
    (1, "when it was counted there were 1 fewer"),
    (4, "2 more were not: this /proc may not show them"),
])
def test_what_was_not_found_is_said(mapcount: int, said: str) -> None:
    frame = who(of_file=False).frame
    assert frame is not None
    text = " ".join(screen(of_file=False, frame=frame._replace(mapcount=mapcount)).split())
    assert said in text and "which are all" not in text


def test_why_something_may_be_missing_is_said() -> None:
    found = who(of_file=False)
    assert found.frame is not None
    tried = found.tried._replace(not_looked=((1, "refused"),), gone=(7, 8))
    text = " ".join(screen(of_file=False, frame=found.frame._replace(mapcount=3),
                           tried=tried).split())
    assert ("1 more was not: 1 process could not be looked at, or 2 processes ended meanwhile, or"
            " this /proc") in text


def test_nothing_is_blamed_on_proc_when_the_reverse_map_was_asked() -> None:
    frame = who(of_file=False).frame
    assert frame is not None
    text = " ".join(screen(of_file=False, found_by=REVERSE_MAP,
                           frame=frame._replace(mapcount=3)).split())
    assert "1 more was not: it is mapped again and unmapped all the time" in text


def test_a_process_that_proc_does_not_show_has_its_number_on_the_host() -> None:
    shown = who(of_file=False).mappers
    hidden = shown[0]._replace(pids=(), on_host=(77,), mapping=None)
    text = screen(of_file=False, mappers=(hidden, shown[1]), found_by=REVERSE_MAP)
    assert "2 mappings in 2 processes were found" in text
    assert "1 of these processes is not in this /proc" in " ".join(text.split())
    assert re.search(r"(?m)^77 on the host +7f0000000000 +r-xp +0 +server +not known$", text)
    out = io.StringIO()
    who_table.json(who(mappers=(hidden,), found_by=REVERSE_MAP), (hidden,), out)
    (told,) = json.loads(out.getvalue())["mappers"]
    assert (told["pid"], told["pids"], told["on_host"], told["mapping"]) == (None, [], [77], None)
    assert json.loads(out.getvalue())["found_by"] == "reverse map"


def test_a_file_is_told_with_its_mappings() -> None:
    text = screen()
    assert text.startswith("/lib/x.so is mapped by 2 processes in 2 mappings: RSS of 9216 KiB in"
                           " all.\n")
    line = r"(?m)^ 10 +7f0000000000 +r-xp +0 +61440 +8192 +4096 +server +/lib/x.so$"
    assert re.search(line, text)
    assert "1 more: --limit 2 shows all" in screen(1)


def test_a_frame_that_nobody_maps_is_said_to_be_so() -> None:
    frame = who(of_file=False).frame
    assert frame is not None
    assert "is mapped 0 times.\nNo process maps it.\n" in screen(
        of_file=False, frame=frame._replace(mapcount=0), mappers=())


@pytest.mark.parametrize(("charged", "said"), [("", "Nobody is charged for it.\n"), (None, "")])
def test_nobody_charged_is_not_the_same_as_not_known(charged: str | None, said: str) -> None:
    frame = who(of_file=False).frame
    assert frame is not None
    text = screen(of_file=False, frame=frame._replace(charged=charged, node=None))
    assert f"which are all of them.\n{said}\n" in text


def test_nobody_is_no_table() -> None:
    assert screen(mappers=()) == "/lib/x.so is mapped by 0 processes in 0 mappings.\n"


def test_the_document_has_the_frame_and_every_mapping() -> None:
    found = json.loads(written.write("json", "who"))
    assert found["frame"] is None
    assert found["mappers"][1] == {
        "pid": 11, "pids": [11, 12], "on_host": [], "name": "worker", "addr": "0x7f0000001000",
        "size": 4 * MIB, "perms": "r--p", "offset": 4096, "mapping": "/lib/x.so", "rss": MIB,
        "pss": MIB}
