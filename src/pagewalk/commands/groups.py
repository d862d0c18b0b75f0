"""What the commands on cgroups share: which group TARGET means, and how one is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from pagewalk import commands
from pagewalk.commands.options import Request, check_watch

if TYPE_CHECKING:
    from pagewalk.account.ledger import Line
    from pagewalk.history.recorded_machine import RecordedMachine
    from pagewalk.proc.cgroups import Hierarchy
    from pagewalk.proc.containers import Records
    from pagewalk.render.columns import Choice
    from pagewalk.system.containers import Name
    from pagewalk.system.group import Group


def explain_group(
    request: Request, choice: Choice, path: str, name: Name, value: Callable[[Line, str], Any]
) -> int:
    """Explain what the memory cgroup at ``path``, which is called ``name``, is charged for.

    Returns the exit code.
    """
    from pagewalk.model.errors import BadRequest
    from pagewalk.proc.cgroups import find_hierarchy
    from pagewalk.sources.ram import open_ram
    from pagewalk.system.ask_group import asked
    from pagewalk.system.group import look_at_group
    from pagewalk.system.looks import closest

    if request.freeze:
        raise BadRequest("--freeze stops one process, not a cgroup: leave it out")
    check_watch(request)
    source = open_ram(request.source, kernel=True)
    about = asked(path, find_hierarchy(), request.source, request.budget_ns)
    return show_group(request, choice, name, value,
                      lambda: closest(lambda: look_at_group(source, about), steady=True))


def show_group(
    request: Request, choice: Choice, name: Name, value: Callable[[Line, str], Any],
    look: Callable[[], Group],
) -> int:
    """Write what ``look`` says of the cgroup that is called ``name``; return the exit code."""
    from pagewalk.render import view

    with commands.output(request.output) as out:
        shown = view(request.format, "group", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = look()
            lines = choice.rows(found.lines, value)
            write(found._replace(lines=lines), name, columns=choice.columns)
    return commands.concluded(request, found.withheld, found.lines)


def explain_recorded(
    request: Request, choice: Choice, value: Callable[[Line, str], Any], *, always: bool
) -> int | None:
    """Explain the cgroup that TARGET means in a recording; None if it means none.

    FILE means the cgroup if one was looked at, else the process; FILE:/PATH a cgroup, and
    FILE:NAME with ``always``.
    """
    if always and os.path.isdir(request.target):  # a cgroup may have its name, the root does
        return None
    with in_recording(request) as found:
        if found is None:
            return None
        from pagewalk.history.recorded_machine import one_group

        machine, word = found
        if not always and (word or not machine.groups()) and not word.startswith("/"):
            return None
        from pagewalk.commands.machine import note_recorded

        group, name = one_group(machine, word)
        code = show_group(request, choice, name, value, lambda: group)
        note_recorded(request, machine.recording.path, machine)
        return code


@contextmanager
def in_recording(request: Request) -> Iterator[tuple[RecordedMachine, str] | None]:
    """Yield the recording that TARGET names, and which cgroup or process of it; None if none."""
    from pagewalk.snapshot.places import is_recording

    word = request.target
    ends = [at for at, letter in enumerate(word) if letter == ":"] + [len(word)]
    for end in ends:
        if is_recording(word[:end]):
            from pagewalk.commands.machine import believed, recorded

            with closing(recorded(request, word[:end])) as machine, believed(word[:end]):
                yield machine, word[end + 1 :]
            return
    yield None


def meant_group(word: str, *, always: bool) -> tuple[str, Name] | None:
    """Return the memory cgroup that TARGET ``word`` means, its path and what it is called.

    None if a process is meant: that comes first, except for a path below where cgroups are mounted.
    Raises BadTarget.
    """
    from pagewalk.model.errors import BadTarget, SourceUnavailable
    from pagewalk.proc.processes import find
    from pagewalk.snapshot.places import may_be_recording

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
