"""The screen, the document and the rows of `share`."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from pagewalk.proc.objects import Object
from pagewalk.render import share_table
from pagewalk.render.share_table import answers
from pagewalk.system.peak import Highest, Peak
from pagewalk.system.share import Share
from tests.render import written
from tests.share_by_hand import MIB, family, member, with_members


def screen(rows: tuple[int, ...] = (0, 1, 2), **changed: Any) -> str:
    return screen_of(family(**changed), *rows)


def screen_of(found: Share, *rows: int) -> str:
    out = io.StringIO()
    share_table.text(found, rows, out)
    return out.getvalue()


def sentences(**changed: Any) -> list[str]:
    return list(answers(family(**changed)))


def test_the_first_sentences_are_what_is_held_what_is_freed_and_what_one_more_costs() -> None:
    assert sentences() == [
        "3 processes hold 81920 KiB together, each page counted once; RSS adds up to 163840 KiB,"
        " PSS to 68608 KiB, USS to 24576 KiB.",
        "Ending all would free 71680 KiB, and 3072 KiB of page tables.",
        "One more worker costs about 9216 KiB (the 2 children: 5120 KiB to 9216 KiB).",
    ]


def test_one_process_is_spoken_of_as_one() -> None:
    one = member(10, 1, "server", 60, 25, 12, 10)._replace(page_tables=0)
    first, second = answers(with_members(one))
    assert first.startswith("1 process holds 81920 KiB, each page counted once;")
    assert second == "Ending it would free 71680 KiB."
    child = family().children[:1]
    assert sentences(children=child)[2].endswith("(as the only child does).")


def test_without_frames_the_sums_are_bounds() -> None:
    assert sentences(frames=False) == [
        "3 processes hold between 68608 KiB and 163840 KiB: their PSS and RSS add up to that."]
    one = member(10, 1, "server", 60, None, None, None)
    assert list(answers(with_members(one, held=None, freed=None))) == [
        "1 process holds at most 61440 KiB: their RSS adds up to that."]


def test_a_child_is_shown_with_where_it_diverged() -> None:
    text = screen()
    assert re.search(r"(?m)^ 11 +10 +40960 +5120  4096: \[heap\] 3072, anonymous 1024$", text)
    assert re.search(r"(?m)^ 12 +10 +30720 +9216  8192: \[heap\] 6144, anonymous 1024, x.so 1024$",
                     text)
    many = {f"/lib/{number}.so": MIB for number in range(5)}
    only = family().children[0]._replace(diverged=many)
    assert "5120: 0.so 1024, 1.so 1024, 2.so 1024, 2 more" in screen(children=(only,))


@pytest.mark.parametrize(("columns", "shown"), [
    (100, "5120: zero.so 1024, one.so 1024, two.so 1024, 2 more"),
    (80, "5120: zero.so 1024, one.so 1024, 3 more"), (60, "5120: zero.so 1024, 4 more"),
    (50, "5120"),
])
def test_where_it_diverged_is_named_by_as_many_names_as_there_is_room_for(
    columns: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    many = {f"/lib/{name}.so": MIB for name in ("zero", "one", "two", "three", "four")}
    text = screen(children=(family().children[0]._replace(diverged=many),))
    assert re.search(r"(?m)^ *11 +10 +40960 +5120  (.*)$", text)[1] == shown  # type: ignore[index]


def test_only_children_of_rows_that_are_shown_are_shown() -> None:
    text = screen((0, 1))
    assert re.search(r"(?m)^ 11 +10 ", text) and not re.search(r"(?m)^ 12 +10 ", text)
    assert "1 more: --limit 3 shows all" in text


def test_each_pair_is_shown_of_few_processes() -> None:
    assert re.search(r"(?m)^SHARED +10 +11 +12\n10 +40960  30720\n11 +40960 +30720\n12 ", screen())
    nine = (member(pid, 1, "x", 1, 1, 1, 1) for pid in range(9))
    assert "\nSHARED" not in screen_of(with_members(*nine), 0)
    assert "\nSHARED" not in screen(both=None)


def test_what_ends_with_them_and_what_is_missing_is_said() -> None:
    assert "ends with them: /memfd:cache (deleted), 6144 KiB in RAM" in screen()
    assert "partial: held, freed: frames are hidden" in screen(frames=False)


def test_what_others_map_too_is_said_and_who_they_may_be() -> None:
    whole = " ".join(screen().split())
    assert ("mapped by others too: 5120 KiB of what they hold, by processes that are not in the"
            " set") in whole
    assert "/proc" not in whole and "mapped by others" not in screen(elsewhere=0)
    tried = family().looked.tried._replace(not_looked=((13, "refused"),), gone=(14, 15))
    looked = family().looked._replace(tried=tried)
    inside = " ".join(screen(looked=looked, seen=False).split())
    assert ("by processes that are not in the set or 1 that could not be looked at or 2 that ended"
            " meanwhile or others that this /proc does not show, such as those outside of"
            " a container") in inside
    assert "others that this /proc may not show" in " ".join(screen(seen=None).split())
    assert "mapped by others" not in screen(frames=False)


def test_of_many_objects_that_end_with_the_set_the_largest_are_named_each_name_once() -> None:
    names = ["/memfd:shared (deleted)"] * 80 + [f"/memfd:{number} (deleted)" for number in range(6)]
    objects = tuple(Object(1, inode, name, MIB * (1 + inode // 80), linked=False)
                    for inode, name in enumerate(names))
    lines = [line for line in screen(objects=objects).splitlines() if "ends with them" in line]
    assert lines[0] == (
        "ends with them: 80 objects called /memfd:shared (deleted), 81920 KiB in RAM")
    assert len(lines) == 6
    assert lines[-1] == "ends with them: 2 more objects, 4096 KiB in RAM"


def test_the_document_has_every_member_and_pair() -> None:
    found = json.loads(written.write("json", "share"))
    assert found["held"] == 80 * MIB and found["freed"] == 70 * MIB
    assert [row["pid"] for row in found["members"]] == found["pids"] == [10, 11, 12]
    assert found["shared"][0] == [0, 40 * MIB, 30 * MIB]
    assert found["children"][1]["diverged"][0] == {"name": "[heap]", "bytes": 6 * MIB}
    hidden = json.loads(written.write("json", "share", frames=False))
    assert hidden["held"] is hidden["shared"] is hidden["freed"] is None
    assert hidden["not_looked"] == [{"pid": 13, "why": "it is another user's"}]
    assert hidden["gone"] == [14] and hidden["partial"]


@pytest.mark.parametrize("names", [None, ("uss", "program")])
def test_csv_has_a_line_for_each_member(names: tuple[str, ...] | None) -> None:
    head, *lines = written.write("csv", "share", columns=names).splitlines()
    assert len(lines) == 3
    if names:
        assert (head, lines[0]) == ("pid,uss,program", f"10,{12 * MIB},/srv/server")


def test_the_peak_has_its_bounds_and_where_they_are_from() -> None:
    said = " ".join(screen().split())
    assert ("At the peak they held at least 87040 KiB (seen) and at most 177152 KiB (VmHWM added"
            " up, and what it may miss). The cgroup /app was charged 204800 KiB at most, page"
            " cache and kernel memory included.") in said
    now = Peak(80 * MIB, Highest().without("hugetlb pages"), None, None, ())
    assert "At the peak they held at least 81920 KiB (now). " in " ".join(screen(
        peak=now).split())
    assert "peak" not in screen(peak=now._replace(at_least=None))
    found = json.loads(written.write("json", "share"))["peak"]
    assert found == {"at_least": 85 * MIB, "at_most": 173 * MIB, "vm_hwm": 170 * MIB,
                     "vm_hwm_off": 3 * MIB, "cgroup": "/app", "charged": 200 * MIB, "not_told": []}


def test_the_most_that_was_seen_stays() -> None:
    first, second = (Peak(held, Highest(9, 0), None, None, ()) for held in (5, 3))
    assert second.since(first).at_least == 5 and first.since(second).at_least == 5
    assert first.since(None) == first
    unseen = second._replace(at_least=None)
    assert unseen.since(first) == unseen and first.since(unseen) == first
