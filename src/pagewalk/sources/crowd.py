"""Many address spaces as one, side by side, so that one walk reads the page tables of all of them.

What a walk costs beside the pages, and small processes have few, is then paid once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from pagewalk.kernel.running import RunningKernel, as_it_is_now
from pagewalk.kernel.structs.rmap import unshared
from pagewalk.kernel.structs.spaces import Spaces, SpacesVmas, read_spaces, read_their_vmas, still
from pagewalk.model.columns import I64, Bool, VMAs
from pagewalk.pagetables.decode import Root
from pagewalk.proc.kernel import read_facts
from pagewalk.proc.target import Target, open_folder
from pagewalk.sources.tables import TableSpace

MOST = 128  # processes: a directory of each is open, and all must fit into 64 bits of addresses
MAPPINGS = 1000  # of a process: one with more is not small


@dataclass(eq=False, kw_only=True)
class Crowd(TableSpace):
    """The address spaces of several processes.

    That of the k-th begins at k times the end of user addresses. ``pids`` i64 are their numbers,
    ``targets`` their /proc directories while they are open; ``spaces`` and ``theirs`` are what the
    kernel says of them.
    """

    pids: I64
    targets: tuple[Target, ...]
    spaces: Spaces
    theirs: SpacesVmas

    def __post_init__(self) -> None:
        self.unshared = self.alone

    @property
    def roots(self) -> Root:
        """Return the physical addresses (u64) of the PGDs."""
        return self.spaces.root - np.uint64(self.running.direct_map.base)

    @property
    def member(self) -> I64:
        """Return which process each VMA belongs to."""
        return self.theirs.owner

    def vmas_of(self, row: int) -> slice:
        """Return which of the VMAs are those of process ``row``."""
        return slice(*np.searchsorted(self.member, [row, row + 1]).tolist())

    def vmas(self) -> VMAs:
        """Return the VMAs of all, with their flags and without names."""
        raw, none = self.theirs.raw, np.zeros(len(self.member), np.uint64)
        base = self.member.astype(np.uint64) * np.uint64(self.running.arch.user_end)
        return VMAs(raw.start + base, raw.end + base, none.astype(np.uint8), none, none, none,
                    self.theirs.backing, ("",) * len(none), raw.flags)

    def alone(self, vmas: VMAs) -> Bool:
        """Return a mask of the VMAs whose ordinary pages only their process maps: see unshared.

        It is certain for those that ``unchanged`` names afterwards.
        """
        averages = self.facts.config is None or self.facts.average_mapcounts
        if averages or self.spaces.sequence is None:
            return np.zeros(len(vmas), bool)
        return unshared(self.running.kernel, self.theirs.raw)

    def unchanged(self) -> Bool:
        """Return which of them were read whole and have not changed meanwhile."""
        return still(self.running.kernel, self.spaces, self.theirs)


@contextmanager
def open_crowd(running: RunningKernel, numbers: Sequence[int], *, ask: bool) -> Iterator[Crowd]:
    """Open those of the processes that /proc lists as ``numbers``, at most MOST, until the end.

    With ``ask`` only those that we may look at: no security module checks reads of kernel memory.
    Raises PagewalkError and OSError where this kernel does not say enough.
    """
    with ExitStack() as held:
        targets = [one for number in numbers
                   if (one := open_one(number, held, ask=ask)) is not None]
        running = as_it_is_now(running)
        spaces = read_spaces(running.kernel, [one.dirfd for one in targets])
        here = np.flatnonzero(spaces.known & (spaces.many <= MAPPINGS))
        spaces = Spaces._make(None if column is None else column[here] for column in spaces)
        known = tuple(targets[row] for row in here.tolist())
        pids = np.array([one.pid for one in known], np.int64)
        yield Crowd(running, read_facts(), 0, 0, pids=pids, targets=known, spaces=spaces,
                    theirs=read_their_vmas(running.kernel, spaces))


def open_one(number: int, held: ExitStack, *, ask: bool) -> Target | None:
    # A process by its /proc directory, None if it is gone or refused; ``held`` closes it.
    with suppress(OSError):
        fd = open_folder(f"/proc/{number}")
        held.callback(os.close, fd)
        if ask:  # as sources.open_best does
            os.close(os.open("maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd))
        return Target(number, "", None, fd, fd, [], {})
    return None
