"""Who maps one frame, by the kernel's own reverse map: nobody is walked.

The VMAs that may map it are looked up in the page tables of their processes, each for one entry.
Nothing is locked, and what changes meanwhile is looked at again; the mapcount, read before and
after, tells if all mappings were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np

from pagewalk.kernel.frames import StructPages
from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.frames_at import frames_at
from pagewalk.kernel.structs.gather import gather, in_direct_map
from pagewalk.kernel.structs.inodes import read_inodes
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.rmap_walk import candidates
from pagewalk.kernel.structs.tasks import Tasks, read_tasks
from pagewalk.kernel.structs.vmas import RawVmas
from pagewalk.model.columns import I64, U64, alike
from pagewalk.model.errors import NoAddressSpace, NotPermitted, PagewalkError, ProcessGone
from pagewalk.proc.maps import names_in
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import read_maps
from pagewalk.sources.vma_names import perms_of
from pagewalk.system.mappers import Mapper

LOOKS = 8
MOST = 1 << 16  # VMAs that are looked at: reading them takes a tenth of a second


class Mapped(NamedTuple):
    """VMAs (``vma``) that map a frame, at ``addr`` (u64), by mm_struct, as of one moment.

    ``mm`` u64 is the mm_struct of each, ``cache`` u64 the address_space of its file, 0 without one.
    ``tasks`` are all threads, ``users`` the rows of the processes that have an mm_struct,
    ``before`` and ``after`` the frame's mapcount. If it is not ``complete``, there were more VMAs
    than were to be looked at.
    """

    vma: RawVmas
    mm: U64
    addr: U64
    cache: U64
    tasks: Tasks
    users: dict[int, list[int]]
    before: int
    after: int
    complete: bool

    @property
    def settled(self) -> bool:
        """Return whether these are all mappings, as far as the mapcount tells."""
        return self.before == self.after == len(self.mm)

    def by_process(self) -> Iterator[Self]:
        """Yield what each mm_struct has of these."""
        for first, last in pairwise([*alike(self.mm).tolist(), len(self.mm)]):
            rows = slice(first, last)
            yield self._replace(
                vma=RawVmas(*(column[rows] for column in self.vma)), mm=self.mm[rows],
                addr=self.addr[rows], cache=self.cache[rows])


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
    users = processes_of(tasks, found.mm[rows])
    # An address space that no process has any more is being taken down, and this mapping with it.
    used = np.array([mm in users for mm in found.mm[rows].tolist()], bool)
    file = np.where(in_direct_map(running.direct_map, vma.file), vma.file, np.uint64(0))
    cache, _ = gather(kernel, "file", file, ("f_mapping",))
    after = int(frames.mapcounts(frame)[0])
    return Mapped(
        RawVmas(*(column[used] for column in vma)), found.mm[rows][used], found.addr[rows][used],
        cache["f_mapping"][used], tasks, users, before, after, found.complete)


def processes_of(tasks: Tasks, mm: U64) -> dict[int, list[int]]:
    """Return for each mm_struct of ``mm`` (u64) the rows of the processes that have it."""
    rows = {address: row for row, address in enumerate(tasks.address.tolist())}
    found: dict[int, dict[int, None]] = {}
    threads = np.flatnonzero(np.isin(tasks.mm, mm))
    for each, leader in zip(
            tasks.mm[threads].tolist(), tasks.leader[threads].tolist(), strict=True):
        if leader in rows:
            found.setdefault(each, {})[rows[leader]] = None
    return {each: [*those] for each, those in found.items()}


def pages_at(running: RunningKernel, mm: U64, addr: U64) -> I64:
    """Return the frame at each of ``addr`` (u64[n]) in the mm_struct at ``mm``, -1 for none."""
    every, back = np.unique(mm, return_inverse=True)
    found, there = gather(running.kernel, "mm_struct", every, ("pgd",))
    # of a struct that was freed meanwhile it may be any number
    there &= in_direct_map(running.direct_map, found["pgd"])
    root = np.where(there, found["pgd"] - np.uint64(running.direct_map.base), np.uint64(0))
    frames = frames_at(running.kernel, running.direct_map, running.arch, root[back], addr)
    return np.where(there[back], frames, -1)


def named(
    running: RunningKernel, mapped: Mapped, stall: Stall, ask: bool
) -> tuple[list[Mapper], dict[int, str]]:
    """Return a Mapper for each mapping, and the processes that were refused, with the reason."""
    tasks, page = mapped.tasks, 1 << running.arch.page_shift
    mappers: list[Mapper] = []
    refused: dict[int, str] = {}
    for some in mapped.by_process():
        users = np.array(mapped.users[int(some.mm[0])])
        shown = sorted(tasks.pid[users[tasks.shown[users]]].tolist())
        hidden = () if shown else tuple(sorted(tasks.pid[users].tolist()))
        try:
            names = names_of(shown[0], some, stall) if shown else None
        except NotPermitted as error:
            if ask:
                refused |= dict.fromkeys(shown, str(error))
                continue
            names = None
        whose = Mapper(tuple(shown), tasks.comm[int(users[0])], 0, page, 0, None, None,
                       on_host=hidden)
        mappers += made(whose, some, names or paths_of(running.kernel, some))
    return sorted(mappers, key=lambda one: (not one.pids, one.pids, one.on_host, one.addr)), refused


def made(whose: Mapper, mapped: Mapped, names: Sequence[str | None]) -> list[Mapper]:
    vma = mapped.vma
    inside = vma.offset + mapped.addr - vma.start
    return [
        whose._replace(
            addr=addr, perms=perms, offset=offset if file else None, mapping=name)
        for addr, perms, offset, file, name in zip(
            mapped.addr.tolist(), perms_of(vma.flags).tolist(), inside.tolist(), vma.file.tolist(),
            names, strict=True)
    ]


def names_of(pid: int, mapped: Mapped, stall: Stall) -> list[str] | None:
    """Return what /proc/PID/maps calls each VMA of one process.

    None if it ended, or has other VMAs by now. Raises NotPermitted.
    """
    try:
        text = read_maps(pid, stall)
    except (ProcessGone, NoAddressSpace):
        return None
    edges = zip(mapped.vma.start.tolist(), mapped.vma.end.tolist(), strict=True)
    return names_in(text, edges)


def paths_of(kernel: Kernel, mapped: Mapped) -> list[str | None]:
    """Return the path of each VMA's file inside its file system, None if that is not known."""
    has = np.flatnonzero(mapped.cache)
    paths: list[str | None] = [None] * len(mapped.cache)
    for row, path in zip(
            has.tolist(), read_inodes(kernel, mapped.cache[has]).path, strict=True):
        paths[row] = path
    return paths
