"""The whole machine in each of the ways in which a command shows it, and a recording keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from pagewalk.model.columns import Withheld
from pagewalk.model.errors import SourceUnavailable
from pagewalk.model.facts import Facts
from pagewalk.proc.containers import read_records
from pagewalk.sources.ram import RamSource
from pagewalk.system.cached import CachedFiles, add_up_files, without_owners
from pagewalk.system.containers import Name, names_of
from pagewalk.system.files import MOST, FilesReport, name_files, name_owners
from pagewalk.system.group_table import GroupTable, look_at_groups
from pagewalk.system.kernel_memory import KernelMemory, look_at_kernel
from pagewalk.system.look import Ram, look_at_ram
from pagewalk.system.looks import closest
from pagewalk.system.ram_map import RamMap, map_ram
from pagewalk.system.survey import opened


class FilesLook(NamedTuple):
    """The page cache by file; ``owners``: the path of the cgroup that a word of a Charge means."""

    report: FilesReport
    owners: dict[int, str]


class MapLook(NamedTuple):
    """Where in RAM its uses lie, and what of that is not told."""

    found: RamMap
    withheld: tuple[Withheld, ...]


class Machine(Protocol):
    """All of RAM and of its cgroups, as they are or as they were recorded.

    Each method raises what its look does; of a recording BadRecording, and BadTarget for what it
    lacks.
    """

    @property
    def facts(self) -> Facts:
        """Return the facts of the kernel."""
        ...

    def ram(self) -> Ram:
        """Return what all of RAM is used for."""
        ...

    def files(self, most: int = MOST) -> FilesLook:
        """Return the page cache by file, at most ``most`` of each sort by name."""
        ...

    def slab(self) -> KernelMemory:
        """Return the kernel's memory by name."""
        ...

    def map(self) -> MapLook:
        """Return where in RAM its uses lie."""
        ...

    def cgroups(self, *, dying: bool) -> GroupTable:
        """Return all cgroups; with ``dying`` also what keeps those that were removed."""
        ...

    def names(self, paths: Iterable[str]) -> dict[str, Name]:
        """Return what each of the cgroups at ``paths`` is, and what people call it."""
        ...


class LiveMachine:
    """This machine, read from ``source``; see Machine."""

    def __init__(self, source: RamSource) -> None:
        self.source = source

    @property
    def facts(self) -> Facts:
        """Return the facts of the kernel."""
        return self.source.facts

    def ram(self) -> Ram:
        """Return the look with the least doubt; see looks.closest."""
        return closest(lambda: look_at_ram(self.source))

    def files(self, most: int = MOST) -> FilesLook:
        """Return the page cache by file, and who is charged for it."""
        opened(self.source)
        return self.named(add_up_files(self.source.frames()), most)

    def named(self, cached: CachedFiles, most: int) -> FilesLook:
        """Return the page cache with its names, at most ``most`` of each sort."""
        running = opened(self.source)
        kernel, withheld = running.kernel, self.source.notes
        owners: dict[int, str] = {}
        try:
            owners = name_owners(kernel, running.direct_map, cached)
        except SourceUnavailable as error:
            cached = without_owners(cached)
            withheld += (Withheld("who is charged", str(error)),)
        found = name_files(kernel, running.direct_map, cached, self.facts.page_size, most)
        return FilesLook(found._replace(withheld=withheld), owners)

    def slab(self) -> KernelMemory:
        """Return the kernel's memory by name."""
        return look_at_kernel(self.source)

    def map(self) -> MapLook:
        """Return where in RAM its uses lie."""
        return MapLook(map_ram(self.source.frames(), self.source.ranges or []), self.source.notes)

    def cgroups(self, *, dying: bool) -> GroupTable:
        """Return all cgroups; with ``dying`` also what keeps those that were removed."""
        return look_at_groups(self.source, dying=dying)

    def names(self, paths: Iterable[str]) -> dict[str, Name]:
        """Return what each of the cgroups at ``paths`` is, from the state files of engines."""
        return names_of(paths, read_records())
