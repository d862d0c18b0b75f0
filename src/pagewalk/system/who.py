"""Everybody who maps one frame, or one file.

One frame by the kernel's reverse map where that can be read, else by walking every address space.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pagewalk.account.table import table
from pagewalk.model.bits import kpf
from pagewalk.model.columns import I64, Pages, VMAs, Withheld
from pagewalk.model.errors import (
    BadRequest,
    NoAddressSpace,
    NotPermitted,
    PagewalkError,
    ProcessGone,
)
from pagewalk.model.rules import IS_PRESENT
from pagewalk.proc.cgroups import find_hierarchy, list_groups
from pagewalk.proc.files import named
from pagewalk.proc.frames import owner_of
from pagewalk.proc.iomem import read_ranges
from pagewalk.proc.kcmp import by_memory
from pagewalk.proc.maps import identity, own_mapping
from pagewalk.proc.memory_blocks import node_of
from pagewalk.proc.namespace import own_numbers, shows_all
from pagewalk.proc.processes import read_processes
from pagewalk.proc.stall import Stall
from pagewalk.sources import Source
from pagewalk.sources.outcome import Outcome
from pagewalk.system.mappers import ALL_MAPPINGS, REVERSE_MAP, Frame, Mapper, Who, mapper
from pagewalk.system.members import Tried, Visit, try_each, unseen
from pagewalk.system.processes import LiveProcesses
from pagewalk.translate.address import holder_of, locate
from pagewalk.walking.walk import NOT_ASKED, walk

if TYPE_CHECKING:
    from pagewalk.kernel.structs.kernel import Kernel
    from pagewalk.system.file_users import Users
    from pagewalk.system.reverse_map import Reversed

ZERO_PAGE = kpf("zero_page")


def who_maps_frame(pfn: int, source: str, budget_ns: int) -> Who:
    """Return who maps frame ``pfn``: by the kernel's reverse map, else by walking all processes.

    Raises NotPermitted if frames are not visible, BadRequest for the zero page and for a frame
    that is no RAM, and what members.try_each raises.
    """
    check_frame(pfn)
    with LiveProcesses(source, budget_ns).opened(own_numbers()[0]) as own:
        if frame_of(own, pfn).kflags & ZERO_PAGE:
            raise BadRequest(f"frame {pfn:#x} is the zero page: it is mapped wherever memory was"
                             " read and never written, and nobody is charged for it")
        stall = Stall(budget_ns)
        found = reversed_for(own, pfn, source, stall)
        if found is not None and found.final:
            return told_by_reverse_map(own, pfn, found, stall)
        walked = walked_for(own, pfn, source, budget_ns)
    if found is not None and len(found.mappers) > len(walked.mappers):
        return walked._replace(mappers=found.mappers, found_by=REVERSE_MAP)
    return walked


def reversed_for(own: Source, pfn: int, source: str, stall: Stall) -> Reversed | None:
    """Return who maps frame ``pfn`` by the reverse map, None where that cannot be read or tell.

    ``own`` is this process, as read by ``source``.
    """
    if own.page_tables is None:
        return None
    from pagewalk.system.reverse_map import by_reverse_map

    # As for a walk: where no source was named, processes that /proc refuses to show are left alone.
    return by_reverse_map(own.page_tables.running, pfn, stall, ask=source == "auto")


def told_by_reverse_map(own: Source, pfn: int, found: Reversed, stall: Stall) -> Who:
    lost: list[Withheld] = []
    if found.missing and not found.complete:
        from pagewalk.system.reverse_map import MOST

        lost.append(Withheld(ALL_MAPPINGS, f"more than {MOST} VMAs may map it, and no more are"
                             " looked at; --source procfs walks all processes", partial=True))
    if found.missing:
        lost += unseen(dict(found.refused))
    frame = frame_of(own, pfn)._replace(mapcount=found.after)
    tried = Tried(own.name, found.refused, (), stall.longest_ns, tuple(lost))
    return Who(f"frame {pfn:#x}", frame, found.mappers, tried, REVERSE_MAP)


def walked_for(own: Source, pfn: int, source: str, budget_ns: int) -> Who:
    """Walk each address space and return who maps frame ``pfn``; ``own`` is this process."""
    mappers: list[Mapper] = []

    def visit(_: int, together: list[int], one: Source) -> Outcome:
        pages = walk(one, Pages, frames=False)
        page = pages.facts.page_size
        for batch in pages:
            if batch.pfn is None:
                raise NotPermitted("page frames", "not visible to you", "run as root")
            first = batch.pfn.astype(np.int64)
            end = first + (batch.size // np.uint64(page)).astype(np.int64)
            rows = np.flatnonzero(IS_PRESENT[batch.state] & (first <= pfn) & (pfn < end))
            for row in rows.tolist():
                addr = int(batch.addr[row]) + (pfn - int(first[row])) * page
                vma = int(batch.vma[row])
                mappers.append(mapper(together, one.who.name, pages.vmas, vma, addr, page))
        return pages.outcome

    tried = try_each(by_memory(every_process()), LiveProcesses(source, budget_ns), visit)
    frame = frame_of(own, pfn)
    # If all mappings were found, nothing that could not be looked at has another.
    lost = () if frame.mapcount == len(mappers) else tuple(
        row for row in tried.withheld if row != NOT_ASKED)
    return Who(f"frame {pfn:#x}", frame, tuple(mappers), tried._replace(withheld=lost))


def every_process() -> list[int]:
    """Return the pids of all processes that have an address space."""
    return [process.pid for process in read_processes()]


def check_frame(pfn: int) -> None:
    """Raise BadRequest if there is no RAM at ``pfn``; NotPermitted for whoever may not see that."""
    ranges = read_ranges()
    if not any(first <= pfn < last for first, last in ranges):
        raise BadRequest(f"frame {pfn:#x} is no RAM: the last frame of RAM is"
                         f" {ranges[-1][1] - 1:#x} (/proc/iomem)")


def frame_of(own: Source, pfn: int) -> Frame:
    """Return what is known of a frame; raises NotPermitted if frames are not visible."""
    frames = own.space.frames
    if frames is None:
        raise NotPermitted("page frames", "not visible to you", "run as root")
    flags, count = frames.read(np.array([pfn], np.uint64), np.zeros(1, bool))
    page = own.space.facts.page_size
    return Frame(pfn, int(flags[0]), int(count[0]), charged_for(pfn), node_of(pfn * page))


def charged_for(pfn: int) -> str | None:
    """Return what Frame.charged is: as root, None for everybody else."""
    inode = owner_of(pfn)
    if not inode:
        return None if inode is None else ""
    with suppress(PagewalkError):
        groups = list_groups(find_hierarchy())
        rows = np.flatnonzero(groups.inode == inode)
        return groups.path[int(rows[0])] if len(rows) else None
    return None


def frame_at(phys: int, source: str, budget_ns: int) -> int:
    """Return the number of the frame at a physical address."""
    with LiveProcesses(source, budget_ns).opened(own_numbers()[0]) as own:
        return phys // own.space.facts.page_size


def frame_behind(pid: int, address: str, source: str, budget_ns: int) -> int:
    """Return the frame behind ``address`` (see translate.address.locate) of a process.

    Raises BadRequest if there is none, NotPermitted if frames are not visible.
    """
    with LiveProcesses(source, budget_ns).opened(pid) as one:
        vmas, page = one.vmas(), one.space.facts.page_size
        addr = locate(address, vmas)
        start = addr - addr % page
        row = holder_of(vmas, addr)
        if row is None or vmas.gate[row]:
            raise BadRequest(f"process {pid} has no memory of its own at {addr:#x}")
        found = walk(one, Pages, frames=False,
                     ranges=np.array([[start, start + page]], np.uint64))
        for batch in found:
            for row in np.flatnonzero(IS_PRESENT[batch.state]).tolist():
                if batch.pfn is None:
                    raise NotPermitted("page frames", "not visible to you", "run as root")
                return int(batch.pfn[row]) + (start - int(batch.addr[row])) // page
    raise BadRequest(f"no page is in RAM at {addr:#x} of process {pid}: pagewalk vtop {pid}"
                     f" {addr:x} says what is there")


class Asked(NamedTuple):
    """A file or a SysV segment: what it is called, the rows of the VMAs that map it, and where the
    kernel has its page cache, None if that cannot be told."""

    name: str
    rows: Callable[[VMAs], I64]
    page_cache: Callable[[Kernel], int | None]


def who_maps_file(asked: Asked, source: str, budget_ns: int) -> Who:
    """Walk what each process maps of a file, only those that do where the kernel's memory tells.

    Raises what members.try_each raises.
    """
    mappers: list[Mapper] = []

    def visit(_: int, together: list[int], one: Source) -> Outcome:
        vmas = one.vmas()
        rows = asked.rows(vmas)
        if not len(rows):
            return one.outcome()
        found = table(one, ranges=vmas.ranges[rows])
        amounts = [found.columns[name] for name in ("rss", "pss")]
        # The VMAs are those of the walk, which may have been read anew.
        for row in asked.rows(found.vmas).tolist():
            made = mapper(together, one.who.name, found.vmas, row, int(found.vmas.start[row]),
                          int(found.vmas.size[row]))
            rss, pss = (None if column is None else int(column[row]) for column in amounts)
            mappers.append(made._replace(rss=rss, pss=pss))
        return found.outcome

    with LiveProcesses(source, budget_ns).opened(own_numbers()[0]) as own:
        users = users_for(own, asked)
    tried = walk_users(users, own.name, source, budget_ns, visit)
    if users is None:
        return Who(asked.name, None, tuple(mappers), tried)
    if users.hidden:
        tried = tried._replace(withheld=(*tried.withheld, Withheld(
            f"rss and pss of {len(users.hidden)} of the mappings", "they are of processes that this"
            " /proc does not show", partial=True)))
    return Who(asked.name, None, (*mappers, *users.hidden), tried, REVERSE_MAP)


def walk_users(
    users: Users | None, name: str, source: str, budget_ns: int, visit: Visit
) -> Tried:
    """Let ``visit`` walk each of ``users`` of a file, all processes if they are not known."""
    if users is not None:
        if not users.groups:
            return Tried(name, (), (), 0, ())
        try:
            return try_each(users.groups, LiveProcesses(source, budget_ns), visit)
        except (ProcessGone, NoAddressSpace):  # all of them have ended meanwhile
            return Tried(name, (), tuple(group[0] for group in users.groups), 0, ())
    tried = try_each(by_memory(every_process()), LiveProcesses(source, budget_ns), visit)
    if shows_all():
        return tried
    return tried._replace(withheld=(*tried.withheld, Withheld(
        "mappings by other processes", "this /proc may not show all processes of the machine",
        partial=True)))


def users_for(own: Source, asked: Asked) -> Users | None:
    """Return who maps a file by its page cache, None where that cannot be read or tell."""
    if own.page_tables is None:
        return None
    from pagewalk.system.file_users import users_of

    return users_of(own.page_tables.running, asked.page_cache)


def of_path(path: str) -> Asked:
    """Return what finds the file at ``path``; raises OSError if there is none."""
    dev, inode, _ = identity(path)

    def rows(vmas: VMAs) -> I64:
        return np.flatnonzero((vmas.inode == np.uint64(inode)) & (vmas.dev == np.uint64(dev)))

    def page_cache(kernel: Kernel) -> int | None:
        from pagewalk.kernel.structs.i_mmap import page_cache_at, page_cache_of

        with named(path) as fd:
            own = page_cache_of(kernel, fd)
        if own is not None:
            return own
        with own_mapping(path) as address:
            return page_cache_at(kernel, address)

    return Asked(path, rows, page_cache)


def of_segment(shmid: int) -> Asked:
    """Return what finds the SysV segment ``shmid``, which is the inode that its VMAs show."""

    def rows(vmas: VMAs) -> I64:
        segments = np.array([name.startswith("/SYSV") for name in vmas.name], bool)
        return np.flatnonzero(segments & (vmas.inode == np.uint64(shmid)))

    def page_cache(kernel: Kernel) -> int | None:
        from pagewalk.kernel.structs.i_mmap import page_cache_of_segment

        return page_cache_of_segment(kernel, shmid)

    return Asked(f"SysV segment {shmid}", rows, page_cache)
