"""Which processes a command on several is about: by pid, by name, by tree, by user, or all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from pagewalk.model.errors import BadTarget, ProcessGone, in_a_line
from pagewalk.proc.files import numbers, read_bytes
from pagewalk.proc.namespace import number_in_proc, own_numbers
from pagewalk.proc.processes import NUMBER, Listed, Process, called_so, nobody_called, read_listed


class Wanted(NamedTuple):
    """What a set is asked for by; what any of them names is in it.

    ``words`` are pids and names, which may be patterns; ``trees`` pids, with all that descends from
    them; ``users`` names or numbers; ``pids`` are numbers as /proc has them; ``everyone`` all.
    """

    words: tuple[str, ...] = ()
    trees: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    everyone: bool = False


class Chosen(NamedTuple):
    """A process of a set, and the process that it is a child of."""

    process: Process
    parent: int


class Among(NamedTuple):
    """The processes that words may mean, and who answers what their rows do not tell.

    ``us`` is the pid of this process, 0 if it is not among them; ``number`` the number in a row of
    what the caller calls by a pid; ``real_uid`` the real user of a process; ``uid_called`` the
    number of a user, None if there is none; ``root`` a /proc, empty if there is none.
    """

    rows: list[Listed]
    us: int
    number: Callable[[int], int]
    real_uid: Callable[[Process], int]
    uid_called: Callable[[str], int | None]
    root: str

    @property
    def others(self) -> list[Listed]:
        """Return the rows without that of this process."""
        return [row for row in self.rows if row[0].pid != self.us]


def among(root: str = "/proc") -> Among:
    """Return the processes of this machine, as the /proc at ``root`` lists them."""
    return Among(list(read_listed(root)), own_numbers()[0], number_in_proc,
                 partial(real_uid_of, root), uid_called, root)


def choose(wanted: Wanted, listed: Among | None = None) -> list[Chosen]:
    """Return the processes that are ``wanted`` and have an address space, by pid, each once.

    They are those of ``listed``, or of this machine, whose process that runs us is only in a set
    that names its pid. Raises BadTarget for a word that names none, and for an empty set.
    """
    listed = listed or among()
    others = listed.others
    found = set(wanted.pids) - {listed.us}
    for word in wanted.words:
        found |= named(word, listed)
    for word in wanted.trees:
        found |= descended(one_pid(word, listed), others)
    for user in wanted.users:
        found |= of_user(user, listed)
    if wanted.everyone:
        found |= {process.pid for process, _, _ in others}
    chosen = [Chosen(process, stat.parent) for process, stat, _ in listed.rows
              if process.pid in found and stat.vsize]
    if not chosen:
        raise BadTarget("none of the processes asked for has an address space; pagewalk processes"
                        " lists those that have one")
    return sorted(chosen, key=lambda one: one.process.pid)


def choose_by_pid(pids: Iterable[int], root: str = "/proc") -> list[Chosen]:
    """Return those of the processes ``pids`` that have an address space, by pid; not ourselves."""
    wanted = sorted(set(pids) - {own_numbers()[0]})
    return [Chosen(process, stat.parent)
            for process, stat, _ in read_listed(root, map(str, wanted)) if stat.vsize]


def named(word: str, listed: Among) -> set[int]:
    """Return the pids of those that ``word``, a pid or a name, means; raises BadTarget."""
    if NUMBER.fullmatch(word):
        return {one_pid(word, listed)}
    called = called_so(word, listed.others, listed.root)
    if not called:
        raise nobody_called(word, files=bool(listed.root))
    return {process.pid for process, _ in called}


def one_pid(word: str, listed: Among) -> int:
    """Return the number in ``listed`` of the process whose pid is ``word``; raises BadTarget."""
    if not NUMBER.fullmatch(word) or not 0 < int(word) < 1 << 31:
        raise BadTarget(f"'{word}' is not a valid pid")
    pid = listed.number(int(word))
    if all(process.pid != pid for process, _, _ in listed.rows):
        raise ProcessGone(pid, "does not exist")
    return pid


def descended(pid: int, listed: Iterable[Listed]) -> set[int]:
    """Return ``pid`` and the pids of all that descend from it."""
    children: dict[int, list[int]] = {}
    for process, stat, _ in listed:
        children.setdefault(stat.parent, []).append(process.pid)
    found, waiting = {pid}, [pid]
    while waiting:
        new = [child for child in children.get(waiting.pop(), ()) if child not in found]
        found.update(new)
        waiting += new
    return found


def of_user(user: str, listed: Among) -> set[int]:
    """Return the pids of the processes of ``user``, a name or a number; raises BadTarget."""
    uid = int(user) if NUMBER.fullmatch(user) else listed.uid_called(user)
    if uid is None:
        raise BadTarget(f"there is no user '{in_a_line(user)}'; give a name or a number")
    return {process.pid for process, _, _ in listed.others if listed.real_uid(process) == uid}


def uid_called(name: str) -> int | None:
    """Return the number of a user of this machine, None if there is none."""
    from pwd import getpwnam

    try:
        return getpwnam(name).pw_uid
    except KeyError:
        return None


def user_name(uid: int) -> str:
    """Return the name of a user, or the number if it has none."""
    from pwd import getpwuid

    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def real_uid(pid: int, owner: int, root: str = "/proc") -> int:
    """Return the real user of a process, ``owner`` if it has ended."""
    # The owner of /proc/PID is root for one that may not be looked at (prctl PR_SET_DUMPABLE).
    try:
        return (numbers(read_bytes(f"{root}/{pid}/status"), b"Uid") or [owner])[0]
    except OSError:
        return owner


def real_uid_of(root: str, process: Process) -> int:
    return real_uid(process.pid, process.uid, root)
