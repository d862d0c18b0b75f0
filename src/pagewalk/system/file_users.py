"""The processes that map a file or a SysV segment, by its own tree of VMAs: nobody is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.i_mmap import mapped_by
from pagewalk.kernel.structs.inodes import read_inodes
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.tasks import read_tasks
from pagewalk.kernel.structs.vmas import RawVmas
from pagewalk.model.columns import U64
from pagewalk.model.errors import PagewalkError
from pagewalk.sources.vma_names import perms_of
from pagewalk.system.mappers import Mapper
from pagewalk.system.reverse_map import LOOKS, MOST, processes_of


class Users(NamedTuple):
    """Processes that map a file: ``groups`` of pids that have an address space in common, and
    mappings of those that this /proc does not show (``hidden``)."""

    groups: tuple[list[int], ...]
    hidden: tuple[Mapper, ...]


def users_of(running: RunningKernel, find: Callable[[Kernel], int | None]) -> Users | None:
    """Return who maps the address_space that ``find`` returns, None if that cannot be told.

    Nothing is locked, so the tree is read until two readings agree.
    """
    try:
        mapping = find(running.kernel)
        found = None if mapping is None else steady(running, mapping)
        if mapping is None or found is None:
            return None
        return shared_out(running.kernel, mapping, *found)
    # it changed meanwhile, or is not in BTF, or may not be read, or is empty
    except (OSError, ValueError, PagewalkError):
        return None


def steady(running: RunningKernel, mapping: int) -> tuple[RawVmas, U64] | None:
    """Return the VMAs that map ``mapping``, and the mm_struct of each (u64); None if there are too
    many, or if they changed on every look. Raises OSError."""
    last: RawVmas | None = None
    for _ in range(LOOKS):
        vma, mm, complete = mapped_by(running.kernel, running.direct_map, mapping, MOST)
        if not complete:
            return None
        if last is not None and np.array_equal(np.stack(last), np.stack(vma)):
            return vma, mm
        last = vma
    return None


def shared_out(kernel: Kernel, mapping: int, vma: RawVmas, mm: U64) -> Users:
    tasks = read_tasks(kernel)
    groups: list[list[int]] = []
    hidden: list[Mapper] = []
    perms = perms_of(vma.flags)
    for each, rows in processes_of(tasks, mm).items():
        shown = sorted(tasks.pid[row] for row in rows if tasks.shown[row])
        if shown:
            groups.append([int(pid) for pid in shown])
            continue
        (path,) = read_inodes(kernel, np.array([mapping], np.uint64)).path
        on_host = tuple(sorted(int(tasks.pid[row]) for row in rows))
        hidden += [
            Mapper((), tasks.comm[rows[0]], int(vma.start[row]),
                   int(vma.end[row] - vma.start[row]), int(perms[row]), int(vma.offset[row]), path,
                   on_host=on_host)
            for row in np.flatnonzero(mm == np.uint64(each)).tolist()
        ]
    hidden.sort(key=lambda one: (one.on_host, one.addr))
    return Users(tuple(sorted(groups)), tuple(hidden))
