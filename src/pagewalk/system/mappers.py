"""What is told of a page frame, and of each mapping of it or of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pagewalk.model.columns import VMAs
from pagewalk.system.members import Tried

WALK, REVERSE_MAP, RECORDING = "walk", "reverse map", "recording"
ALL_MAPPINGS = "all mappings of the page"  # withheld where there are too many


class Mapper(NamedTuple):
    """A mapping by ``pids``, which have one address space, in bytes.

    ``addr`` is where the page is mapped, or where the mapping of a file begins; ``size`` is its
    length, ``offset`` where in the file it begins, None for memory without one; ``perms`` are the
    bits of VMAs.perms, ``mapping`` the name of the VMA, None if that is not known. ``rss`` and
    ``pss`` are of a mapping of a file, None for a page and where withheld. If this /proc does not
    show the processes, they are in ``on_host``, by their numbers on the host, and ``mapping`` is a
    path inside its file system.
    """

    pids: tuple[int, ...]
    name: str
    addr: int
    size: int
    perms: int
    offset: int | None
    mapping: str | None
    rss: int | None = None
    pss: int | None = None
    on_host: tuple[int, ...] = ()

    @property
    def pid(self) -> int | None:
        """Return the first of its processes, None if this /proc shows none."""
        return self.pids[0] if self.pids else None


class Frame(NamedTuple):
    """A page frame; ``kflags`` as in /proc/kpageflags, ``mapcount`` how often it is mapped.

    ``pfn`` is None where a recording has numbered frames anew.
    ``charged`` is the path of the cgroup that is charged for it, or of which a removed group below
    is; "" if nobody is charged, None if it is not known. ``node`` is its NUMA node, None if that is
    not told.
    """

    pfn: int | None
    kflags: int
    mapcount: int
    charged: str | None
    node: int | None


class Who(NamedTuple):
    """Who maps ``frame``, or the file called ``asked``: a row for each mapping.

    ``found_by`` is WALK, all processes were walked, REVERSE_MAP, or RECORDING.
    """

    asked: str
    frame: Frame | None
    mappers: tuple[Mapper, ...]
    tried: Tried
    found_by: str = WALK


def mapper(
    pids: Sequence[int], name: str, vmas: VMAs, row: int, addr: int, size: int
) -> Mapper:
    """Return the Mapper of what VMA ``row`` of a process called ``name`` has at ``addr``."""
    start, inode = int(vmas.start[row]), int(vmas.inode[row])
    offset = int(vmas.offset[row]) + addr - start if inode or vmas.of_objects[row] else None
    return Mapper(tuple(pids), name, addr, size, int(vmas.perms[row]), offset, vmas.name[row])
