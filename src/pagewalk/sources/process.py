"""What all sources of a live process share: the process, its file systems, its counters."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

from pagewalk.model.columns import Withheld
from pagewalk.proc.counters import Theirs, read_theirs
from pagewalk.proc.maps import LastMaps
from pagewalk.proc.smaps import LastSmaps
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import Target
from pagewalk.sources import Who


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
    notes: tuple[Withheld, ...] = field(default=(), kw_only=True)
    last: LastMaps = field(default_factory=LastMaps, kw_only=True)

    @property
    def live(self) -> Self:
        """Return the process itself."""
        return self

    @property
    def who(self) -> Who:
        """Return whose address space it is."""
        return Who(self.target.pid, self.target.name, self.target.exe)

    def theirs(self, *files: str, last: LastSmaps | None = None) -> Theirs:
        """Return the kernel's own numbers; see proc.counters.read_theirs."""
        return read_theirs(self.target, self.stall, *files, last=last)

    def close(self) -> None:
        """Close every descriptor except the target's; closing them again does nothing."""
        self.held.close()
