"""What the machine is asked while one cgroup is looked at: the kernel's numbers, its processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from pagewalk.model.errors import GroupGone, SourceUnavailable
from pagewalk.proc.cgroup_numbers import GroupNumbers, read_numbers
from pagewalk.proc.cgroup_search import check_controller, pids_below
from pagewalk.proc.cgroups import Hierarchy, list_groups, open_group
from pagewalk.proc.namespace import pid_numbers
from pagewalk.sources import close, open_listed
from pagewalk.system.group import Asked
from pagewalk.system.mapped import MappedPages
from pagewalk.walking import rows


def asked(path: str, hierarchy: Hierarchy, source: str, budget_ns: int) -> Asked:
    """Return what is asked about group ``path``; raises GroupGone, NotPermitted.

    Its processes are opened by ``source``; ``budget_ns`` is how long a single read may hold the
    lock of one.
    """
    check_controller(path, hierarchy)
    with open_group(hierarchy, path) as group:
        inode = os.fstat(group).st_ino
    return Asked(path, hierarchy.version, inode, lambda: read_numbers(hierarchy, path),
                 lambda: pids_below(hierarchy, path),
                 lambda pid, mapped: walk_pages(pid, mapped, source, budget_ns),
                 lambda: groups_below(hierarchy, path),
                 lambda: list(numbers_above(hierarchy, path)))


def groups_below(hierarchy: Hierarchy, path: str) -> list[tuple[str, int]]:
    """Return the groups directly below ``path``, and what the kernel says they use."""
    groups = list_groups(hierarchy)
    found = []
    for at, parent in enumerate(groups.parent.tolist()):
        if parent >= 0 and groups.path[parent] == path:
            with suppress(GroupGone):
                used = read_numbers(hierarchy, groups.path[at]).current
                if used is not None:  # else it has no memory controller
                    found.append((groups.path[at], used))
    return found


def numbers_above(hierarchy: Hierarchy, path: str) -> Iterator[tuple[str, GroupNumbers]]:
    """Yield the groups above ``path``, the nearest first, and the kernel's numbers for each."""
    while path not in ("/", hierarchy.root):
        path = path.rpartition("/")[0] or "/"
        try:
            yield path, read_numbers(hierarchy, path)
        except (GroupGone, SourceUnavailable):  # not mounted here: a container sees its own part
            return


def walk_pages(pid: int, mapped: MappedPages, name: str, budget_ns: int) -> None:
    """Hand the pages of process ``pid``, opened by source ``name``, to ``mapped``.

    Raises what opening it raises. By "auto" a process that the kernel does not let us look at is
    left alone (see sources.open_source); a source that is asked for by name reads it all the same.
    """
    source = open_listed(pid, name, budget_ns)
    try:
        vmas = source.vmas()
        pages = rows.Asked(source.space, vmas, vmas.ranges, frames=False, holes=False)
        mapped.add(pid_numbers(pid), source.who.name, vmas, rows.paged(pages))
    finally:
        close(source)
