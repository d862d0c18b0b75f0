"""Where the processes of a set are: on this machine, or in a recording of one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NamedTuple, Protocol

from pagewalk.model.errors import ProcessGone
from pagewalk.proc.cgroups import find_hierarchy, group_of
from pagewalk.proc.chosen import Among, among, real_uid, user_name
from pagewalk.proc.kcmp import by_memory, shared_outside
from pagewalk.proc.namespace import shows_all
from pagewalk.proc.processes import Process
from pagewalk.proc.stall import BUDGET_NS
from pagewalk.sources import Source, close, open_listed
from pagewalk.system.at_once import AtOnce, amounts_at_once
from pagewalk.system.endings import Held, Key, end_with_all
from pagewalk.system.peak import Charged, of_their_group


class Processes(Protocol):
    """Who answers what is asked about several processes, which are named by their pids there.

    ``source`` is what they are read from, ``budget_ns`` how long a single read may hold a lock.
    """

    @property
    def source(self) -> str:
        """Return the name of what they are read from."""

    @property
    def recorded(self) -> bool:
        """Return whether it is a recording, which does not change."""

    @property
    def budget_ns(self) -> int:
        """Return how long a single read may hold the lock of one."""

    def listed(self) -> Among:
        """Return its processes, which words may mean."""

    def opened(self, pid: int) -> AbstractContextManager[Source]:
        """Open a process until the block ends; raises why it cannot be looked at."""

    def by_memory(self, pids: Collection[int]) -> list[list[int]]:
        """Return ``pids`` in lists of those that share an address space; see chosen.by_memory."""

    def shared_outside(self, groups: Collection[list[int]]) -> set[int]:
        """Return the first pids of those whose address space others have too; see chosen."""

    def amounts(self, processes: Sequence[Process], enough: Callable[[], bool]) -> AtOnce:
        """Return the totals of those that need no walk of their own; see at_once."""

    def shows_all(self) -> bool | None:
        """Return whether it shows the processes of the whole machine, None if that is not known."""

    def end(self, held: Mapping[Key, Held]) -> dict[Key, bool | None]:
        """Return whether each object ends with all who hold it; see endings.end_with_all."""

    def charged(self, pids: frozenset[int]) -> Charged:
        """Return what the cgroup was charged that has ``pids`` and no other processes."""

    def user_of(self, pid: int, owner: int) -> str:
        """Return the name of the real user of a process, or of ``owner`` if it has ended."""

    def group_of(self) -> Callable[[int], str | None]:
        """Return what tells the cgroup of a process; raises SourceUnavailable if nothing does."""


class LiveProcesses(NamedTuple):
    """The machine that we run on; see Processes."""

    source: str = "auto"
    budget_ns: int = BUDGET_NS
    recorded: bool = False

    def listed(self) -> Among:
        """Return its processes."""
        return among()

    @contextmanager
    def opened(self, pid: int) -> Iterator[Source]:
        """Open the process that /proc lists as ``pid``."""
        found = open_listed(pid, self.source, self.budget_ns)
        try:
            yield found
        finally:
            close(found)

    def by_memory(self, pids: Collection[int]) -> list[list[int]]:
        """Compare address spaces by kcmp(2)."""
        return by_memory(pids)

    def shared_outside(self, groups: Collection[list[int]]) -> set[int]:
        """Compare address spaces with those of all other processes."""
        return shared_outside(groups)

    def amounts(self, processes: Sequence[Process], enough: Callable[[], bool]) -> AtOnce:
        """Walk together those that can be."""
        return amounts_at_once(processes, self.source, enough)

    def shows_all(self) -> bool | None:
        """Look at the PID namespace of /proc."""
        return shows_all()

    def end(self, held: Mapping[Key, Held]) -> dict[Key, bool | None]:
        """Count who holds them in the kernel's memory."""
        return end_with_all(held, self.opened)

    def charged(self, pids: frozenset[int]) -> Charged:
        """Ask the cgroup."""
        return of_their_group(pids)

    def user_of(self, pid: int, owner: int) -> str:
        """Look in /proc and in the list of users."""
        return user_name(real_uid(pid, owner))

    def group_of(self) -> Callable[[int], str | None]:
        """Look in /proc."""
        hierarchy = find_hierarchy()

        def told(pid: int) -> str | None:
            with suppress(ProcessGone):
                return group_of(pid, hierarchy)
            return None

        return told
