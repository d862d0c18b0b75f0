"""What the commands on cgroups share: which group TARGET means, and how one is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pagewalk import commands
from pagewalk.commands.options import Request, check_watch

if TYPE_CHECKING:
    from pagewalk.account.ledger import Line
    from pagewalk.proc.cgroup_numbers import GroupNumbers
    from pagewalk.proc.cgroups import Hierarchy
    from pagewalk.proc.containers import Records
    from pagewalk.render.columns import Choice
    from pagewalk.system.containers import Name
    from pagewalk.system.group import Asked
    from pagewalk.system.mapped import MappedPages

def explain_group(
    request: Request, choice: Choice, path: str, name: Name, value: Callable[[Line, str], Any]
) -> int:
    """Explain what the memory cgroup at ``path``, which is called ``name``, is charged for.

    Returns the exit code.
    """
    from pagewalk.commands.looks import closest
    from pagewalk.model.errors import BadRequest
    from pagewalk.proc.cgroups import find_hierarchy
    from pagewalk.render import view
    from pagewalk.sources.ram import open_ram
    from pagewalk.system.group import look_at_group

    if request.freeze:
        raise BadRequest("--freeze stops one process, not a cgroup: leave it out")
    check_watch(request)
    source = open_ram(request.source, kernel=True)
    about = asked(path, find_hierarchy(), request.source, request.budget_ns)
    with commands.output(request.output) as out:
        shown = view(request.format, "group", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = closest(lambda: look_at_group(source, about), steady=True)
            lines = choice.rows(found.lines, value)
            write(found._replace(lines=lines), name, columns=choice.columns)
    return commands.concluded(request, found.withheld, found.lines)


def meant_group(word: str, *, always: bool) -> tuple[str, Name] | None:
    """Return the memory cgroup that TARGET ``word`` means, its path and what it is called.

    None if a process is meant: that comes first, except for a path below where cgroups are mounted.
    Raises BadTarget.
    """
    from pagewalk.model.errors import BadTarget, SourceUnavailable
    from pagewalk.proc.processes import find
    from pagewalk.snapshot.read import may_be_recording

    if not always and may_be_recording(word):
        return None
    if not always and not word.startswith("/sys/fs/cgroup/"):
        try:
            find(word)
            return None
        except BadTarget as error:
            if word.isdecimal():
                raise
            if error.candidates:
                hint = "\n  a cgroup is called that too: explain --cgroup" * is_group(word)
                raise BadTarget(f"{error}{hint}", error.candidates) from None
            nobody = error
    from pagewalk.proc.cgroups import find_hierarchy
    from pagewalk.proc.containers import read_records
    from pagewalk.system.containers import name_of

    records = read_records()
    # a name that is not known has nothing to do with a path
    unread = () if word.startswith("/") else records.missing
    try:
        path = find_path(word, find_hierarchy(), records)
        return path, name_of(path, records)
    except (BadTarget, SourceUnavailable) as error:
        alone = always or word.startswith("/sys/fs/cgroup/")
        if candidates(error) or (alone and not unread):
            raise
        none = "no memory cgroup is called that either"
        if isinstance(error, SourceUnavailable):
            none = f"it is no cgroup either: {error.why}"
        said = str(error) if alone else f"{nobody}; {none}"
        more = "".join(f"\n  not all names are known: {why}" for why in unread)
        raise BadTarget(f"{said}{more}") from None


def is_group(word: str) -> bool:
    """Return whether a memory cgroup, or several, are called ``word``."""
    from pagewalk.model.errors import PagewalkError
    from pagewalk.proc.cgroups import find_hierarchy
    from pagewalk.proc.containers import read_records

    try:
        find_path(word, find_hierarchy(), read_records())
    except PagewalkError as error:
        return candidates(error)
    return True


def candidates(error: Exception) -> bool:
    """Return whether there are several things that TARGET may mean."""
    return bool(getattr(error, "candidates", ()))


def find_path(word: str, hierarchy: Hierarchy, records: Records) -> str:
    """Return the path of the group that ``word`` means; raises BadTarget.

    A pid means the process's own group; else the name of a container or a pod, or what
    proc.cgroup_search.find_group takes.
    """
    from pagewalk.model.errors import BadTarget
    from pagewalk.proc.cgroup_search import check_whole, find_group, several_called
    from pagewalk.proc.cgroups import group_of, list_groups
    from pagewalk.system.containers import find_by_name

    if word.isdecimal():
        path = group_of(int(word), hierarchy)
        if path is None:
            raise BadTarget(f"/proc does not tell which memory cgroup process {word} is in")
        check_whole(path, int(word))
        return path
    if word.startswith("/"):
        return find_group(word, hierarchy)
    groups = list_groups(hierarchy)
    inodes = dict(zip(groups.path, groups.inode.tolist(), strict=True))
    named = find_by_name(word, records, groups.path)
    there = [(path, inodes[path]) for path in named if path in inodes]
    if len(there) > 1:
        raise several_called(word, there)
    if named:  # a state file may be older than the end of what it tells about
        return there[0][0] if there else named[0]
    return find_group(word, hierarchy)


def asked(path: str, hierarchy: Hierarchy, source: str, budget_ns: int) -> Asked:
    """Return what is asked about group ``path``; raises GroupGone, NotPermitted.

    Its processes are opened by ``source``; ``budget_ns`` is how long a single read may hold the
    lock of one.
    """
    from pagewalk.proc.cgroup_numbers import read_numbers
    from pagewalk.proc.cgroup_search import check_controller, pids_below
    from pagewalk.proc.cgroups import open_group
    from pagewalk.system.group import Asked

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
    from contextlib import suppress

    from pagewalk.model.errors import GroupGone
    from pagewalk.proc.cgroup_numbers import read_numbers
    from pagewalk.proc.cgroups import list_groups

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
    from pagewalk.model.errors import GroupGone, SourceUnavailable
    from pagewalk.proc.cgroup_numbers import read_numbers

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
    from pagewalk.proc.namespace import pid_numbers
    from pagewalk.sources import close, open_listed
    from pagewalk.walking.rows import Asked, paged

    source = open_listed(pid, name, budget_ns)
    try:
        vmas = source.vmas()
        pages = Asked(source.space, vmas, vmas.ranges, frames=False, holes=False)
        mapped.add(pid_numbers(pid), source.who.name, vmas, paged(pages, source.outcome()))
    finally:
        close(source)
