"""Who maps one frame, by the kernel's own reverse map: nobody is walked.

The VMAs that may map it are looked up in the page tables of their processes, each for one entry.
Nothing is locked, and what changes meanwhile is looked at again; the mapcount, read before and
after, tells if all mappings were found.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from pagewalk.kernel.frames import StructPages
from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.frames_at import frames_at
from pagewalk.kernel.structs.gather import gather
from pagewalk.kernel.structs.inodes import read_inodes
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.rmap_walk import candidates
from pagewalk.kernel.structs.tasks import Tasks, read_tasks
from pagewalk.kernel.structs.vmas import RawVmas
from pagewalk.model.columns import I64, U64
from pagewalk.model.errors import NoAddressSpace, NotPermitted, PagewalkError, ProcessGone
from pagewalk.proc.maps import line_of, parse_maps
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import open_target
from pagewalk.sources.vma_names import perms_of
from pagewalk.system.mappers import Mapper

LOOKS = 8
MOST = 1 << 16  # VMAs that are looked at: reading them takes a tenth of a second


class Mapped(NamedTuple):
    """VMAs (``vma``) that map a frame, at ``addr`` (u64), as of one moment.

    ``mm`` u64 is the mm_struct of each, ``cache`` u64 the address_space of its file, 0 without one.
    ``tasks`` are all threads, ``before`` and ``after`` the frame's mapcount. If it is not
    ``complete``, there were more VMAs than were to be looked at.
    """

    vma: RawVmas
    mm: U64
    addr: U64
    cache: U64
    tasks: Tasks
    before: int
    after: int
    complete: bool

    @property
    def settled(self) -> bool:
        """Return whether these are all mappings, as far as the mapcount tells."""
        return self.before == self.after == len(self.mm)

    def of(self, mm: int) -> Self:
        """Return what one mm_struct has of these."""
        rows = np.flatnonzero(self.mm == np.uint64(mm))
        vma = RawVmas(*(column[rows] for column in self.vma))
        return self._replace(
            vma=vma, mm=self.mm[rows], addr=self.addr[rows], cache=self.cache[rows])


class Reversed(NamedTuple):
    """The mappings of a frame, and its mapcount, ``before`` and ``after`` they were looked up.

    ``refused`` are processes that may not be looked at, and why. If it is not ``complete``, there
    were more VMAs than were to be looked at.
    """

    mappers: tuple[Mapper, ...]
    before: int
    after: int
    refused: tuple[tuple[int, str], ...]
    complete: bool

    @property
    def missing(self) -> bool:
        """Return whether there are mappings that are not here."""
        return len(self.mappers) < self.after

    @property
    def final(self) -> bool:
        """Return whether a walk of all processes would not tell more.

        While processes come and go all the time, it would be later and no better.
        """
        restless = self.before != self.after
        return not self.missing or restless or bool(self.refused) or not self.complete


def by_reverse_map(
    running: RunningKernel, pfn: int, stall: Stall, *, ask: bool
) -> Reversed | None:
    """Return who maps frame ``pfn``, None if the reverse map cannot tell.

    With ``ask``, a process that /proc refuses to show is left out, though its memory can be read.
    """
    last: Mapped | None = None
    for _ in range(LOOKS):
        try:
            now = look(running, pfn)
        except OSError:
            continue
        except PagewalkError:  # what is not in BTF, a /proc that is not ours
            return None
        if now is None:
            return None
        same = last is not None and np.array_equal(now.mm, last.mm) and (
            last.before == last.after == now.before == now.after)
        last = now
        if now.settled or same:
            break
    if last is None:
        return None
    mappers, refused = named(running, last, stall, ask)
    return Reversed(
        tuple(mappers), last.before, last.after, tuple(refused.items()), last.complete)


def look(running: RunningKernel, pfn: int) -> Mapped | None:
    """Look once at what maps frame ``pfn``, None if the reverse map cannot tell; raises OSError."""
    kernel, frames = running.kernel, running.frames
    if not isinstance(frames, StructPages):  # struct page is not as it is thought to be
        return None
    frame = np.array([pfn], np.uint64)
    before = int(frames.mapcounts(frame)[0])
    found = candidates(frames.frames, running.direct_map, pfn, MOST)
    if found is None:
        return None
    rows = np.flatnonzero(pages_at(running, found.mm, found.addr) == pfn)
    vma = RawVmas(*(column[rows] for column in found.vma))
    tasks = read_tasks(kernel)
    # An address space that no process has any more is being taken down, and this mapping with it.
    used = np.isin(found.mm[rows], tasks.mm)
    cache, _ = gather(kernel, "file", vma.file, ("f_mapping",))
    after = int(frames.mapcounts(frame)[0])
    return Mapped(
        RawVmas(*(column[used] for column in vma)), found.mm[rows][used], found.addr[rows][used],
        cache["f_mapping"][used], tasks, before, after, found.complete)


def pages_at(running: RunningKernel, mm: U64, addr: U64) -> I64:
    """Return the frame at each of ``addr`` (u64[n]) in the mm_struct at ``mm``, -1 for none."""
    every, back = np.unique(mm, return_inverse=True)
    found, there = gather(running.kernel, "mm_struct", every, ("pgd",))
    root = found["pgd"] - np.uint64(running.direct_map.base)
    frames = frames_at(running.kernel, running.direct_map, running.arch, root[back], addr)
    return np.where(there[back], frames, -1)


def named(
    running: RunningKernel, mapped: Mapped, stall: Stall, ask: bool
) -> tuple[list[Mapper], dict[int, str]]:
    """Return a Mapper for each mapping, and the processes that were refused, with the reason."""
    tasks, page = mapped.tasks, 1 << running.arch.page_shift
    mappers: list[Mapper] = []
    refused: dict[int, str] = {}
    for mm in np.unique(mapped.mm).tolist():
        some = mapped.of(mm)
        users = np.isin(tasks.address, tasks.leader[tasks.mm == np.uint64(mm)])
        shown = sorted(tasks.pid[users & tasks.shown].tolist())
        try:
            lines = lines_of(shown[0], some, stall) if shown else None
        except NotPermitted as error:
            if ask:
                refused |= dict.fromkeys(shown, str(error))
                continue
            lines = None
        comm = tasks.comm[int(np.flatnonzero(users)[0])]
        hidden = () if shown else tuple(sorted(tasks.pid[users].tolist()))
        names = lines or paths_of(running.kernel, some)
        mappers += made(Mapper(tuple(shown), comm, 0, page, 0, None, None, on_host=hidden), some,
                        names)
    return sorted(mappers, key=lambda one: (not one.pids, one.pids, one.on_host, one.addr)), refused


def made(whose: Mapper, mapped: Mapped, names: list[str | None]) -> list[Mapper]:
    vma = mapped.vma
    inside = vma.offset + mapped.addr - vma.start
    return [
        whose._replace(
            addr=addr, perms=perms, offset=offset if file else None, mapping=name)
        for addr, perms, offset, file, name in zip(
            mapped.addr.tolist(), perms_of(vma.flags).tolist(), inside.tolist(), vma.file.tolist(),
            names, strict=True)
    ]


def lines_of(pid: int, mapped: Mapped, stall: Stall) -> list[str | None] | None:
    """Return what /proc/PID/maps calls each VMA of one process.

    None if it ended, or has other VMAs by now. Raises NotPermitted.
    """
    try:
        target = open_target(pid)
    except (ProcessGone, NoAddressSpace):
        return None
    try:
        text = target.read("maps", stall)
    except ProcessGone:
        return None
    finally:
        target.close()
    edges = zip(mapped.vma.start.tolist(), mapped.vma.end.tolist(), strict=True)
    lines = [line_of(text, start, end) for start, end in edges]
    return None if None in lines else [parse_maps(line or b"").name[0] for line in lines]


def paths_of(kernel: Kernel, mapped: Mapped) -> list[str | None]:
    """Return the path of each VMA's file inside its file system, None if that is not known."""
    has = np.flatnonzero(mapped.cache)
    paths: list[str | None] = [None] * len(mapped.cache)
    for row, path in zip(
            has.tolist(), read_inodes(kernel, mapped.cache[has]).path, strict=True):
        paths[row] = path
    return paths
