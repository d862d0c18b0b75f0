"""What changed of RAM and of the charge of a cgroup: sums by kind, file, cache and cgroup."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pagewalk.history.diff import Diff
from pagewalk.history.diff_machine import BY, diff_machine, has_machine
from pagewalk.model.errors import BadRequest
from pagewalk.render import view
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.write import Writer, whole_file
from tests.history.spaces import SECOND, moment
from tests.snapshot.by_hand import FACTS, META

MIB = 1 << 20
BEFORE = {("processes", "anon"): 10, ("cache", "file_unmapped"): 30, ("free", "buddy"): 60}
AFTER = {("processes", "anon"): 15, ("cache", "file_unmapped"): 40, ("free", "buddy"): 45}
FILES = {"/a": 4, "/b": 8, None: 3}, {"/a": 6, "/c": 1, None: 3}
CACHES = {"dentry": 2, "inode": 5}, {"dentry": 2, "inode": 7}
GROUPS = {"/": 90, "/web": 20}, {"/": 95, "/web": 31}


def made(
    path: Path, ram: dict[tuple[str, str], int], at: int, group: str | None = None
) -> Recording:
    """Return a recording of RAM, or of the charge of ``group``, in MiB."""
    with whole_file(str(path)) as out:
        writer = Writer(out)
        writer.add("ram", {
            "of_cgroup": [group] * len(ram), "state": [state for state, _ in ram],
            "name": [name for _, name in ram], "size": [mib * MIB for mib in ram.values()]})
        files = FILES[at]
        writer.add("file", {
            "state": ["file"] * len(files), "name": list(files),
            "size": [mib * MIB for mib in files.values()]})
        for record, column, rows in (("cache", "name", CACHES[at]), ("group", "cgroup",
                                                                     GROUPS[at])):
            writer.add(record, {column: list(rows), "size": [m * MIB for m in rows.values()]})
        writer.close(META, FACTS)
    return Recording(str(path))


def compared(
    folder: Path, by: str = "kind", after: dict[tuple[str, str], int] | None = None,
    groups: tuple[str | None, str | None] = (None, None),
) -> Diff:
    one = made(folder / "a.pagewalk", BEFORE, 0, groups[0])
    other = made(folder / "b.pagewalk", AFTER if after is None else after, 1, groups[1])
    assert has_machine(one) and has_machine(other)
    return diff_machine(one, other, (moment(), moment(60 * SECOND)), by)


@pytest.mark.parametrize(("by", "changes"), [
    ("kind", {"free: buddy": -15, "cache: file unmapped": 10, "processes: anon": 5}),
    ("file", {"/a": 2, "/b": -8, "/c": 1}),
    ("cache", {"inode": 2}),
    ("cgroup", {"/web": 11, "/": 5}),
])
def test_what_changed(by: str, changes: dict[str, int], tmp_path: Path) -> None:
    found = compared(tmp_path, by)
    assert {row.what: row.change // MIB for row in found.rows} == changes
    assert sum(row.change for row in found.kinds) == found.whole.change == 0
    assert found.whole.before == found.whole.after == 100 * MIB
    assert found.unexplained is None and len(found.withheld) == 1
    assert set(BY) == {"kind", "file", "cache", "cgroup"}


def test_what_one_side_lacks_is_new_or_gone(tmp_path: Path) -> None:
    rows = {row.what: row for row in compared(tmp_path, "file").rows}
    assert rows["/c"].rss == {"grown": MIB} and rows["/b"].rss == {"unmapped": -8 * MIB}
    assert rows["/a"].rss == {"more": 2 * MIB}


def test_the_first_line_says_what_grew(tmp_path: Path) -> None:
    out = io.StringIO()
    found = compared(tmp_path)
    view("text", "diff", True)(found, found.rows, out)
    first, *others = out.getvalue().splitlines()
    assert first == ("RAM is the same in 60 s, 100M: -15M free: buddy, +10M cache: file unmapped,"
                     " +5.0M processes: anon.")
    assert "HOW" not in out.getvalue() and "given back" not in out.getvalue() and others


def test_the_charge_of_a_cgroup_grows(tmp_path: Path) -> None:
    grown = {**BEFORE, ("processes", "anon"): 17}
    found = compared(tmp_path, "kind", grown, ("/web", "/web"))
    assert (found.of, found.whole.change, found.growth) == ("the charge of /web", 7 * MIB, 7 * MIB)
    out = io.StringIO()
    view("text", "diff", True)(found, found.rows, out)
    assert out.getvalue().startswith("The charge of /web grew by 7.0M in 60 s: +7.0M processes")


def test_a_cgroup_to_which_nothing_was_charged(tmp_path: Path) -> None:
    path = tmp_path / "empty.pagewalk"
    with whole_file(str(path)) as out:
        writer = Writer(out)
        writer.add("group", {"cgroup": ["/web"], "size": [0]})
        writer.close(META, FACTS)
    after = made(tmp_path / "b.pagewalk", {("cache", "file_unmapped"): 40}, 1, "/web")
    found = diff_machine(Recording(str(path)), after, (moment(), moment(SECOND)), "kind")
    assert found.whole.rss == {"grown": 40 * MIB} and found.of == "the charge of /web"


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="one is of /web, the other of all of RAM"):
        compared(tmp_path, groups=("/web", None))
    with pytest.raises(BadRequest, match="--by vma is about processes; of RAM and cgroups choose"):
        compared(tmp_path, "vma")
