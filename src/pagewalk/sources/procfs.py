"""The procfs source: maps, pagemap with PAGEMAP_SCAN, and the frame database.

It works on every kernel and needs no privilege for one's own process. It cannot distinguish an
empty slot from a missing page table, and shows nothing for a PFN map.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from pagewalk.model.columns import VMAs, Withheld
from pagewalk.model.errors import PagewalkError, ProcessGone
from pagewalk.model.ranges import differing
from pagewalk.proc import pagemap
from pagewalk.proc.counters import read_status
from pagewalk.proc.files import to_do
from pagewalk.proc.frames import Frames, open_frames
from pagewalk.proc.kernel import read_facts
from pagewalk.proc.maps import internal_filesystems, parse_mountinfo
from pagewalk.proc.pagemap import PAGE, Pagemap, find_pfn
from pagewalk.proc.refusals import reading, why_missing
from pagewalk.proc.rights import has_capability, in_initial_user_namespace
from pagewalk.proc.stall import Stall, read_slices
from pagewalk.proc.target import Target
from pagewalk.sources.outcome import Outcome
from pagewalk.sources.pagemap import PagemapSpace
from pagewalk.sources.process import LiveSource

NO_TABLES = Withheld(
    "not_mapped",
    "/proc/PID/pagemap does not distinguish an empty slot from a missing page table, so"
    " not_present counts both; ebpf and kcore do (see pagewalk doctor for what they need)",
)
NO_SCAN = Withheld(
    "anon_huge, shmem_huge, file_huge",
    "this kernel has no PAGEMAP_SCAN (since 6.7), the only interface that shows huge mappings",
)
NO_ZERO = Withheld(
    "rss, anon and zero",
    "without PAGEMAP_SCAN (since 6.7) only its frame identifies the zero page, and frames are"
    " hidden; they are shown if VmRSS proves that there is none",
    partial=True,
)
NO_KSM = Withheld(
    "ksm",
    "/proc/kpageflags marks every anonymous page as KSM on this kernel (a bug, seen on 6.12);"
    " use --source ebpf",
)
NO_KPAGE = Withheld(
    "pss, uss, mapcount and the split by kind",
    "/proc/kpageflags and /proc/kpagecount are readable by root only; run as root, or with"
    " CAP_DAC_READ_SEARCH",
    partial=True,
)


def open(name: str, target: Target, budget_ns: int) -> ProcfsSource:
    """Return source ``name`` of ``target``, with every file that it will need already open."""
    def table_bytes() -> int | None:
        try:
            return read_status(target).get("VmPTE")
        except PagewalkError:
            return None

    stall = Stall(budget_ns)
    fds: list[int] = []
    with ExitStack() as held:
        for file in ("maps", "pagemap"):
            fds.append(target.open(file))
            held.callback(os.close, fds[-1])
        frames, hidden = find_frames()
        if frames is not None:
            held.callback(frames.close)
        space = PagemapSpace(
            Pagemap(fds[1], target.pid, stall), read_facts(), frames, pagemap.can_scan(fds[1]),
            hidden is not None, table_bytes,
        )
        filesystems = {**parse_mountinfo(target.read("mountinfo")), **internal_filesystems()}
        return ProcfsSource(name, target, stall, filesystems, held.pop_all(), space, fds[0], hidden)


def find_frames() -> tuple[Frames | None, Withheld | None]:
    # The frame database, or why it cannot be used.
    own = np.ones(PAGE // 8, np.uint64)
    own_pfn = find_pfn(own)
    if not own_pfn:
        return None, pfns_hidden()
    try:
        return open_frames(own=own_pfn), None
    except FileNotFoundError:  # no rights would open a file that does not exist
        why = "; ".join(why_missing("/proc/kpageflags", "CONFIG_PROC_PAGE_MONITOR"))
        return None, NO_KPAGE._replace(why=why)
    except OSError as error:
        if error.errno != errno.ENODATA:
            return None, NO_KPAGE
        why = f"cannot read {error.filename}: {error.strerror}; {to_do(error, '')}"
        return None, NO_KPAGE._replace(why=why)


def pfns_hidden() -> Withheld:
    """Return why PFNs read as 0."""
    if os.geteuid() != 0:
        why = "page frames are shown only with CAP_SYS_ADMIN; run as root"
    elif not in_initial_user_namespace():
        why = (
            "page frames are hidden: you are root in a user namespace, and CAP_SYS_ADMIN counts"
            " only in the initial one; run on the host"
        )
    elif not has_capability("CAP_SYS_ADMIN"):
        why = (
            "page frames are hidden: you are root without CAP_SYS_ADMIN (a default container);"
            " add it (docker run --cap-add SYS_ADMIN), or run on the host"
        )
    else:
        why = "page frames are hidden by this kernel despite CAP_SYS_ADMIN"
    return Withheld("pfn, phys, mapcount, pss, uss, distinct, freed, ksm", why, partial=True)


@dataclass(eq=False)
class ProcfsSource(LiveSource):
    """A process read through /proc; see sources.Source and sources.Live."""

    space: PagemapSpace
    maps_fd: int
    hidden: Withheld | None

    @property
    def page_tables(self) -> None:
        """Return None: /proc shows no page table."""
        return None

    @property
    def pagemap(self) -> Pagemap:
        """Return the open pagemap."""
        return self.space.pagemap

    def outcome(self) -> Outcome:
        """Return what procfs cannot show about this process."""
        huge, frames = self.space.huge, self.space.frames
        rows = (
            NO_TABLES,
            *self.notes,
            None if huge else NO_SCAN,
            NO_ZERO if not huge and frames is None else None,
            None if frames is None or frames.ksm else NO_KSM,
            self.hidden,
        )
        return Outcome(self.stall, [row for row in rows if row is not None])

    def vmas(self) -> VMAs:
        """Return a fresh reading of maps; an empty file means that the memory is gone."""
        with reading(self.target.pid, "maps", self.target.dirfd):
            text = read_slices(self.maps_fd, self.stall, "maps")
        if not text:
            raise ProcessGone(self.target.pid, "ended or exec'ed another program")
        return self.parse(text)

    def changed(self, vmas: VMAs) -> int:
        """Return how many of ``vmas`` have changed since they were read."""
        return differing(vmas.ranges, self.vmas().ranges)

    def forked(self, vmas: VMAs) -> bool:
        """Return False: /proc shows only children that still exist, and most do not last."""
        del vmas
        return False
