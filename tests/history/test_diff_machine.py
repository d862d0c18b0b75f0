"""What changed of RAM and of the charge of a cgroup: sums by kind, file, cache and cgroup."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pagewalk.history.diff import Diff
from pagewalk.history.diff_machine import BY, diff_machine, has_machine
from pagewalk.history.record_groups import GroupLook
from pagewalk.history.record_ram import Missing, add_document
from pagewalk.model.errors import BadRequest, BadTarget
from pagewalk.render import view
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.write import Writer, whole_file
from pagewalk.system.containers import Name
from tests.history.by_hand import Process
from tests.history.by_hand import recorded as processes
from tests.history.spaces import SECOND, moment
from tests.history.test_recorded_machine import looks
from tests.snapshot.by_hand import FACTS, META
from tests.system import by_hand

MIB = 1 << 20
BEFORE = {("processes", "anon"): 10, ("cache", "file_unmapped"): 30, ("free", "buddy"): 60}
AFTER = {("processes", "anon"): 15, ("cache", "file_unmapped"): 40, ("free", "buddy"): 45}
FILES = {"/a": 4, "/b": 8, None: 3}, {"/a": 6, "/c": 1, None: 3}
CACHES = {"dentry": 2, "inode": 5}, {"dentry": 2, "inode": 7}
GROUPS = {"/": 90, "/web": 20}, {"/": 95, "/web": 31}


def documents(writer: Writer, group: str | None, **changed: object) -> None:
    """Record the documents that say that RAM, or the charge of ``group``, was looked at."""
    if group is not None:
        look = GroupLook(by_hand.group(path=group, **changed), Name("", group))
        add_document(writer, f"cgroup {group}", look)
        return
    found = looks().found
    for name in ("ram", "files", "slab", "cgroups"):
        add_document(writer, name, found[name]._replace(**changed) if name == "ram" else
                     found[name])


def made(
    path: Path, ram: dict[tuple[str, str], int], at: int, group: str | None = None
) -> Recording:
    """Return a recording of RAM, or of the charge of ``group``, in MiB."""
    with whole_file(str(path)) as out:
        writer = Writer(out)
        documents(writer, group)
        writer.add("ram", {
            "of_cgroup": [group] * len(ram), "state": [state for state, _ in ram],
            "name": [name for _, name in ram], "size": [mib * MIB for mib in ram.values()]})
        files = FILES[at]
        writer.add("file", {
            "of_cgroup": [group] * len(files), "state": ["file"] * len(files), "name": list(files),
            "size": [mib * MIB for mib in files.values()]})
        for record, column, rows in (("cache", "name", CACHES[at]), ("group", "cgroup",
                                                                     GROUPS[at])):
            of = {"of_cgroup": [group] * len(rows)} if record == "cache" else {}
            writer.add(record, {column: list(rows), "size": [m * MIB for m in rows.values()], **of})
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
    first, *others = out.getvalue().split("\n\n")
    assert " ".join(first.split()) == ("RAM is 100M, as before; in 60 s: -15M free (buddy), +10M"
                                       " cache (file unmapped), +5.0M processes (anon).")
    assert "HOW" not in out.getvalue() and "given back" not in out.getvalue() and others


def test_the_charge_of_a_cgroup_grows(tmp_path: Path) -> None:
    grown = {**BEFORE, ("processes", "anon"): 17}
    found = compared(tmp_path, "kind", grown, ("/web", "/web"))
    assert found.of == "the pages charged to /web"
    assert found.whole.change == found.growth == 7 * MIB
    out = io.StringIO()
    view("text", "diff", True)(found, found.rows, out)
    assert out.getvalue().startswith("The pages charged to /web grew by 7.0M in 60 s: +7.0M"
                                     " processes (anon)")


def test_a_cgroup_to_which_nothing_was_charged(tmp_path: Path) -> None:
    path = tmp_path / "empty.pagewalk"
    with whole_file(str(path)) as out:
        writer = Writer(out)
        documents(writer, "/web")
        writer.add("group", {"cgroup": ["/web"], "size": [0]})
        writer.close(META, FACTS)
    after = made(tmp_path / "b.pagewalk", {("cache", "file_unmapped"): 40}, 1, "/web")
    found = diff_machine(Recording(str(path)), after, (moment(), moment(SECOND)), "kind")
    assert found.whole.rss == {"grown": 40 * MIB} and found.of == "the pages charged to /web"


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="one is of /web, the other of all of RAM"):
        compared(tmp_path, groups=("/web", None))
    with pytest.raises(BadRequest, match="--by vma is about processes; of RAM and cgroups choose"):
        compared(tmp_path, "vma")


def bare(path: Path, name: str, document: object) -> Recording:
    """Return a recording with one document about the machine, and not a row."""
    with whole_file(str(path)) as out:
        writer = Writer(out)
        add_document(writer, name, document)
        writer.close(META, FACTS)
    return Recording(str(path))


@pytest.mark.parametrize("swapped", [False, True])
def test_ram_that_one_side_does_not_have_is_not_gone(swapped: bool, tmp_path: Path) -> None:
    ram = made(tmp_path / "ram", BEFORE, 0)
    program = Recording(processes(tmp_path / "program", Process(5)))
    refused = bare(tmp_path / "refused", "missing", Missing({"ram": "permission denied"}))
    unread = bare(tmp_path / "unread", "ram", by_hand.ram()._replace(parts=None, withheld=()))
    for other, why in ((program, "record it with --ram"), (refused, "permission denied"),
                       (unread, "the kernel's counters were not read")):
        sides = (other, ram) if swapped else (ram, other)
        for by in BY:
            with pytest.raises(BadTarget, match=f"does not have what RAM is used for: {why}"):
                diff_machine(*sides, (moment(), moment(SECOND)), by)
    with pytest.raises(BadTarget, match="record it with --ram"):
        diff_machine(program, program, (moment(), moment(SECOND)), "kind")


@pytest.mark.parametrize(("by", "name"), [("file", "files"), ("cache", "slab"),
                                          ("cgroup", "cgroups")])
def test_a_table_that_one_side_does_not_have_is_not_gone(
    by: str, name: str, tmp_path: Path
) -> None:
    one, path = made(tmp_path / "a", BEFORE, 0), tmp_path / "b"
    with whole_file(str(path)) as out:
        writer = Writer(out)
        add_document(writer, "ram", looks().found["ram"])
        add_document(writer, "missing", Missing({name: "permission denied"}))
        writer.add("ram", {"state": ["free"], "name": ["buddy"], "size": [MIB]})
        writer.close(META, FACTS)
    with pytest.raises(BadTarget, match=r"does not have .*: permission denied"):
        diff_machine(one, Recording(str(path)), (moment(), moment(SECOND)), by)


def test_frames_are_not_compared_with_counters(tmp_path: Path) -> None:
    for group, changed in ((None, {"source": "counters"}), ("/web", {"charge": None})):
        one, path = made(tmp_path / f"a{group is None}", BEFORE, 0, group), tmp_path / "b"
        with whole_file(str(path)) as out:
            writer = Writer(out)
            documents(writer, group, **changed)
            writer.add("ram", {"of_cgroup": [group], "state": ["free"], "name": ["buddy"],
                               "size": [MIB]})
            writer.close(META, FACTS)
        with pytest.raises(BadRequest, match="one has its frames counted, the other nothing but"):
            diff_machine(one, Recording(str(path)), (moment(), moment(SECOND)), "kind")


def test_a_cgroup_recorded_beside_all_of_ram_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "both"
    with whole_file(str(path)) as out:
        writer = Writer(out)
        documents(writer, None)
        documents(writer, "/web")
        writer.add("ram", {"of_cgroup": [None, "/web"], "state": ["free", "free"],
                           "name": ["buddy", "buddy"], "size": [MIB, 2 * MIB]})
        writer.close(META, FACTS)
    both = Recording(str(path))
    found = diff_machine(both, both, (moment(), moment(SECOND)), "kind")
    assert (found.of, found.whole.before, found.rows) == ("RAM", MIB, ())
