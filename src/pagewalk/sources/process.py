"""What all sources of a live process share: the process itself, and what /proc tells of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np

from pagewalk.model.columns import I64, U64, Backing, VMAs, Withheld
from pagewalk.proc.counters import Theirs, read_status, read_theirs
from pagewalk.proc.files import Last
from pagewalk.proc.maps import parse_maps
from pagewalk.proc.objects import Object, ends, read_objects
from pagewalk.proc.smaps import LastSmaps, Smaps, read_smaps
from pagewalk.proc.stall import BUDGET_NS, Stall
from pagewalk.proc.swap import Evicted, ask_cachestat, shmem_swap, swap_in_use
from pagewalk.proc.target import Target
from pagewalk.sources.outcome import Who
from pagewalk.sources.space import Space

if TYPE_CHECKING:
    from pagewalk.kernel.structs.holders import Holder

# smaps holds the lock for a whole VMA, at about 19 ms a GiB: with up to this much RSS, reading that
# of a running process stays within BUDGET_NS.
SMALL_RSS = 128 << 20


@dataclass(eq=False)
class LiveSource:
    """A process held open by source ``name``; see sources.Source and sources.Live.

    ``filesystems`` are the types by device, and ``last`` the maps text that was parsed last;
    ``held`` closes what was opened for this process besides the target.
    """

    name: str
    target: Target
    stall: Stall
    filesystems: dict[int, str]
    held: ExitStack
    space: Space
    notes: tuple[Withheld, ...] = field(default=(), kw_only=True)
    last: Last[VMAs] = field(default_factory=Last, kw_only=True)

    @property
    def live(self) -> Self:
        """Return the process itself."""
        return self

    @property
    def recorded(self) -> None:
        """Return that it is no recording."""

    @property
    def who(self) -> Who:
        """Return whose address space it is."""
        return Who(self.target.pid, self.target.name, self.target.exe)

    def parse(self, text: bytes) -> VMAs:
        """Return the VMAs in a text of maps."""
        return self.last.parse(text, partial(parse_maps, filesystems=self.filesystems))

    def theirs(self, *files: str, last: LastSmaps | None = None) -> Theirs:
        """Return the kernel's own numbers; see proc.counters.read_theirs."""
        return read_theirs(self.target, self.stall, *files, last=last)

    def status(self) -> dict[str, int]:
        """Return the amounts of /proc/PID/status in bytes; see sources.Live."""
        return read_status(self.target)

    def smaps(self, rss: int, name: str = "smaps") -> Smaps | None:
        """Return ``smaps`` or ``smaps_rollup``, None if that takes too long; see sources.Live."""
        largest = SMALL_RSS * self.stall.budget_ns // BUDGET_NS
        # A stopped process waits for nothing meanwhile.
        if rss > largest and self.target.state() not in "Tt":
            return None
        return read_smaps(self.target, self.stall, name)

    def shmem_swap(self, vmas: VMAs) -> I64:
        """Return what smaps adds to each VMA's Swap for its shmem object; see sources.Live."""
        # Swapped shmem pages leave no trace in the page tables; only the object knows.
        found = np.zeros(len(vmas), np.int64)
        rows = np.flatnonzero(vmas.backing == Backing.SHMEM.value)
        if len(rows) == 0 or not swap_in_use():
            return found
        for row, swapped in zip(rows.tolist(), self.shmem_swapped(vmas, rows), strict=True):
            found[row] = shmem_swap(vmas, row, swapped, self.populated)
        return found

    def shmem_swapped(self, vmas: VMAs, rows: I64) -> Iterator[Evicted]:
        """Yield, for each of ``rows``, VMAs of shmem, a function for its object's swapped bytes.

        Each is valid until the next one is requested. /proc needs cachestat(2): OSError before 6.5.
        """
        return ask_cachestat(self.target, vmas, rows)

    def populated(self, vmas: VMAs, row: int) -> U64:
        """Return the ranges (u64[n, 2]) of a VMA that have an entry."""
        parts = [
            np.stack([entries.leaves.addr, entries.leaves.addr + entries.leaves.size], axis=1)
            for entries in self.space.entries(vmas, vmas.ranges[row : row + 1])
        ]
        return np.concatenate([np.zeros((0, 2), np.uint64), *parts])

    def objects(self, vmas: VMAs) -> tuple[list[tuple[Object, bool | None]], list[Withheld]]:
        """Return the memory objects that it holds, and why any may be missing; see sources.Live."""
        found, missing = read_objects(self.target, vmas)
        return list(zip(found, ends(self.target, vmas, found, self.ended_by), strict=True)), missing

    @property
    def holder(self) -> Holder | None:
        """Return what ended_by takes of a process, None where it can tell nothing."""
        return None

    def ended_by(
        self, keys: list[tuple[int, int]], holders: Sequence[Holder] = ()
    ) -> list[bool | None]:
        """Return whether each unlinked memory object, by (dev, inode), ends with the process.

        With ``holders``, other processes, whether it ends with all of them. None where that cannot
        be told: /proc does not show files held by a message on a socket.
        """
        del holders
        return [None] * len(keys)

    def close(self) -> None:
        """Close every descriptor except the target's; closing them again does nothing."""
        self.held.close()
