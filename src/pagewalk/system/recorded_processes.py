"""The processes of a recording, and what it kept of what only their machine could tell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from pagewalk.model.columns import Withheld
from pagewalk.model.errors import (
    BadRequest,
    BadTarget,
    NotPermitted,
    PagewalkError,
    ProcessGone,
    in_a_line,
)
from pagewalk.proc.chosen import Among, Chosen
from pagewalk.proc.processes import Listed, Process
from pagewalk.proc.target import Stat
from pagewalk.snapshot.read import Recording
from pagewalk.sources import Source
from pagewalk.sources.recorded import document, open_in
from pagewalk.sources.recorded_target import no_process
from pagewalk.system.at_once import AtOnce
from pagewalk.system.endings import Held, Key
from pagewalk.system.members import AMOUNTS
from pagewalk.system.peak import CHARGED, Charged

SET = "set"  # the document about all processes of a recording
ROW = ("pid", "mm", "uid", "cgroup", *AMOUNTS)
NOT_ALL = Withheld(CHARGED, "the recording tells it of all its processes together only")


class Refused(NamedTuple):
    """A process that could not be recorded, and ``why``: the three parts of a NotPermitted, or one
    sentence."""

    pid: int
    why: tuple[str, ...]

    @property
    def error(self) -> PagewalkError:
        """Return what was raised."""
        return NotPermitted(*self.why) if len(self.why) == 3 else PagewalkError(*self.why)


class Ending(NamedTuple):
    """An object that processes ``pids`` hold: whether it ends with them all, None: not known."""

    dev: int
    inode: int
    pids: tuple[int, ...]
    ends: bool | None


class RecordedSet(NamedTuple):
    """What was found out about all processes of a recording, beside what each of them holds.

    ``machine`` is a line about their machine, ``source`` what they were read from. ``groups`` are
    the pids of ``processes`` by address space; ``odd`` the first pids of those of whose walk
    something is withheld, ``elsewhere`` of those whose address space others had too. ``gone`` had
    ended, or had no memory; ``users`` are names by number. The others are as in Share and in Peak.
    """

    machine: str
    source: str
    processes: tuple[Chosen, ...]
    groups: tuple[tuple[int, ...], ...]
    odd: tuple[int, ...]
    elsewhere: tuple[int, ...]
    refused: tuple[Refused, ...]
    gone: tuple[int, ...]
    shows_all: bool | None
    endings: tuple[Ending, ...]
    charged: Charged
    users: dict[int, str]


class Row(NamedTuple):
    """A process as its row in the recording has it."""

    uid: int | None
    cgroup: str | None
    amounts: dict[str, int | None]


@dataclass(frozen=True)
class RecordedProcesses:
    """The processes of an open recording; see processes.Processes."""

    recording: Recording
    source: str = "recording"
    budget_ns: int = 0
    recorded: bool = True

    @property
    def some(self) -> bool:
        """Return whether there are any: a recording may be of RAM alone."""
        return "process" in self.recording.kinds

    @property
    def machine(self) -> str:
        """Return a line about their machine; raises BadRecording."""
        return self.told.machine if self.some else f"Linux {self.recording.meta.kernel}"

    @cached_property
    def told(self) -> RecordedSet:
        """Return what was found out about them together; raises BadRecording."""
        if not self.some:
            raise no_process(self.recording)
        found: RecordedSet = document(self.recording, None, SET, RecordedSet)
        return found

    @cached_property
    def rows(self) -> dict[int, Row]:
        """Return the row of each process that was recorded, by pid; raises BadRecording."""
        found: dict[int, Row] = {}
        for part in self.recording.parts("process", ROW):
            uids, cgroups = part.values("uid"), part.texts("cgroup")
            amounts = [part.values(name) for name in AMOUNTS]
            for at, pid in enumerate(part.needed("pid").tolist()):
                told = {name: column[at] for name, column in zip(AMOUNTS, amounts, strict=True)}
                found[pid] = Row(uids[at], cgroups[at], told)
        return found

    def listed(self) -> Among:
        """Return its processes, those that could not be recorded too."""
        names = {name: uid for uid, name in self.told.users.items()}
        return Among([listed(one) for one in self.told.processes], 0, int, self.uid_of, names.get,
                     "")

    def uid_of(self, process: Process) -> int:
        """Return the real user of a process."""
        row = self.rows.get(process.pid)
        return process.uid if row is None or row.uid is None else row.uid

    def below(self, word: str) -> list[int]:
        """Return the processes of the cgroup that ``word`` means and of those below it.

        ``word`` is a path, or the last part of one. Raises BadTarget.
        """
        group_of = self.group_of()
        inside = {pid: f"{path}/" for pid in self.rows if (path := group_of(pid)) is not None}
        groups = {path[:at] for path in inside.values() for at, one in enumerate(path)
                  if one == "/" and at}
        meant = [group for group in sorted(groups)
                 if word.rstrip("/") in (group, group.rpartition("/")[2])]
        if len(meant) == 1:
            return [pid for pid, path in inside.items() if path.startswith(f"{meant[0]}/")]
        path, word = in_a_line(self.recording.path), in_a_line(word)
        if not meant:
            raise BadTarget(f"no process of {path} is in a cgroup called '{word}'; give a path, or"
                            " the last part of one")
        raise BadTarget(f"{len(meant)} cgroups of {path} are called '{word}'; give the path of one:"
                        + "".join(f"\n  {in_a_line(one)}" for one in meant[:20]))

    @contextmanager
    def opened(self, pid: int) -> Iterator[Source]:
        """Open a process; raises why it could not be recorded, and BadRecording."""
        if pid in self.told.gone:
            raise ProcessGone(pid, "had ended before it was recorded")
        for one in self.told.refused:
            if one.pid == pid:
                raise one.error
        source = open_in(self.recording, pid)
        source.shows_frames = False
        yield source  # closed with the recording

    def by_memory(self, pids: Collection[int]) -> list[list[int]]:
        """Return ``pids`` by address space."""
        groups = [sorted({*group} & {*pids}) for group in self.told.groups]
        known = {pid for group in groups for pid in group}
        return sorted(filter(None, [*groups, *([pid] for pid in {*pids} - known)]))

    def shared_outside(self, groups: Collection[list[int]]) -> set[int]:
        """Return the first pids of those of ``groups`` that others have too."""
        whole = {pid: group for group in self.told.groups for pid in group}
        return {group[0] for group in groups
                if len(whole.get(group[0], group)) > len(group)
                or {*group} & {*self.told.elsewhere}}

    def amounts(self, processes: Sequence[Process], enough: Callable[[], bool]) -> AtOnce:
        """Return the totals in the rows of those of whose walk nothing is withheld."""
        del enough
        known = {one.pid: row.amounts for one in processes
                if one.pid not in self.told.odd and (row := self.rows.get(one.pid)) is not None
                and None not in row.amounts.values()}
        return AtOnce(self.told.source, known, ())

    def shows_all(self) -> bool | None:
        """Return what was known when the recording was made."""
        return self.told.shows_all

    def end(self, held: Mapping[Key, Held]) -> dict[Key, bool | None]:
        """Return whether each object ends with its holders, all of which were found."""
        known = {(one.dev, one.inode): one for one in self.told.endings}
        return {key: known[key].ends and {*known[key].pids} <= {*one.pids} if key in known else None
                for key, one in held.items()}

    def charged(self, pids: frozenset[int]) -> Charged:
        """Return what the cgroup was charged if ``pids`` are all that was recorded."""
        return self.told.charged if pids == self.rows.keys() else Charged(None, None, NOT_ALL)

    def user_of(self, pid: int, owner: int) -> str:
        """Return the name that the user had."""
        row = self.rows.get(pid)
        uid = owner if row is None or row.uid is None else row.uid
        return self.told.users.get(uid, str(uid))

    def group_of(self) -> Callable[[int], str | None]:
        """Look in the rows; raises BadRequest if the recording is scrubbed."""
        if self.recording.meta.scrubbed:
            raise BadRequest(f"{in_a_line(self.recording.path)} was made with --scrub, which leaves"
                             " out cgroups: ask for something else")
        return lambda pid: row.cgroup if (row := self.rows.get(pid)) is not None else None


def listed(one: Chosen) -> Listed:
    process = one.process
    stat = Stat(process.name, "", 0, 0, 1, 0, 0, one.parent, 0)
    return process, stat, (process.argv0, *process.command.split(" ")[1:])
