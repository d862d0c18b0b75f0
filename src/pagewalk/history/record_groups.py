"""Record what one cgroup is charged for, as `explain` looks at it."""

from __future__ import annotations

from typing import NamedTuple

from pagewalk.history.hidden import Hidden, Names
from pagewalk.history.machine_rows import one_group
from pagewalk.history.record_ram import Added, add_document, add_rows
from pagewalk.history.record_space import How
from pagewalk.model.facts import Facts
from pagewalk.proc.cgroups import find_hierarchy
from pagewalk.proc.containers import read_records
from pagewalk.snapshot.write import Writer
from pagewalk.sources.ram import open_ram
from pagewalk.system.ask_group import asked
from pagewalk.system.containers import Name, name_of
from pagewalk.system.group import Group, look_at_group
from pagewalk.system.looks import closest

GROUP = "cgroup "  # the document about one: this, and its path


class GroupLook(NamedTuple):
    """A cgroup that was looked at, and what it is and is called."""

    group: Group
    name: Name


def look(
    path: str, source: str, budget_ns: int, *, once: bool = False
) -> tuple[GroupLook, Facts]:
    """Look at the cgroup at ``path``, as `explain` does: several times, unless ``once``.

    Raises GroupGone, NotPermitted, SourceUnavailable, BadTarget, BadText, OSError.
    """
    ram = open_ram(source, kernel=True)
    about = asked(path, find_hierarchy(), source, budget_ns)

    def again() -> Group:
        return look_at_group(ram, about)

    group = again() if once else closest(again, steady=True)
    return GroupLook(group, name_of(path, read_records())), ram.facts


def add_group(
    writer: Writer, path: str, how: How, hidden: Hidden, *, once: bool = False, listed: bool = False
) -> Added:
    """Record what the cgroup at ``path`` is charged for; raises as look does.

    ``once``: look once only, which is quickest. ``listed``: it has a row with all cgroups already.
    """
    found, facts = look(path, how.source, how.budget_ns, once=once)
    kept = add_look(writer, found, hidden, listed=listed)
    return Added((f"cgroup {kept.group.path}",), found.group.withheld, facts)


def add_look(
    writer: Writer, found: GroupLook, hidden: Hidden, *, listed: bool = False
) -> GroupLook:
    """Record what was seen of a cgroup, without what is ``hidden``; return that."""
    group = hidden.of(found.group)
    name = hidden.of(Names({found.group.path: found.name})).of[group.path]
    kept = GroupLook(group, name)
    add_document(writer, GROUP + group.path, kept)
    add_rows(writer, {record: rows for record, rows in one_group(*kept).items()
                      if record != "group" or not listed})
    return kept
