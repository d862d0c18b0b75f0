"""Several looks at all of RAM that share a scan: each is given every batch of its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pagewalk.model.errors import PagewalkError
from pagewalk.model.frames import Frames
from pagewalk.sources.ram import RamSource
from pagewalk.system.cached import CacheSums
from pagewalk.system.files import MOST
from pagewalk.system.group_table import GroupsLook, GroupTable
from pagewalk.system.kernel_memory import KernelLook, KernelMemory
from pagewalk.system.look import Ram, RamLook, look_at_ram
from pagewalk.system.looks import closest
from pagewalk.system.machine import FilesLook, LiveMachine, MapLook
from pagewalk.system.ram_map import MapSums
from pagewalk.system.survey import opened

FAILURES = (OSError, PagewalkError)


class Adding(Protocol):
    """What is given all frames of RAM, batch by batch."""

    def add(self, frames: Frames) -> None:
        """Add a batch."""


class Begun:
    """A look that takes part in a scan; what it raises ends it, and is raised by ``ended``."""

    def __init__(self, begin: Callable[[], Adding]) -> None:
        self.error: Exception | None = None
        try:
            self._look = begin()
        except FAILURES as error:
            self.error = error

    def add(self, frames: Frames) -> None:
        """Give it a batch, unless it has failed."""
        if self.error is None:
            try:
                self._look.add(frames)
            except FAILURES as error:
                self.error = error

    def ended(self) -> Any:
        """Return the look, which has been given everything; raises what it raised."""
        if self.error is not None:
            raise self.error
        return self._look


def scan(source: RamSource, looks: Iterable[Adding]) -> None:
    """Give all frames of RAM to each of ``looks``; raises what ``frames`` of the source raises."""
    every = list(looks)
    for frames in source.frames():
        for look in every:
            look.add(frames)


class OneScan(LiveMachine):
    """This machine, each of whose looks, the first time, comes from the same scan of RAM.

    RAM itself is looked at again if anything is unexplained: see looks.closest. The map is part of
    the scan only if ``physical``.
    """

    def __init__(self, source: RamSource, *, physical: bool) -> None:
        super().__init__(source)
        self._begun: dict[str, Begun] = {}
        self._first: list[Ram] = []
        ranges = source.ranges
        if ranges is None:
            return  # there is nothing to scan: each look says what that means
        looks: dict[str, Callable[[], Adding]] = {
            "files": self._files, "slab": lambda: KernelLook(source),
            "cgroups": lambda: GroupsLook(source, dying=True)}
        if physical:
            looks["map"] = lambda: MapSums(ranges)
        looks["ram"] = lambda: RamLook(source)  # reads the kernel's numbers: right before the scan
        self._begun = {name: Begun(look) for name, look in looks.items()}
        try:
            scan(source, self._begun.values())
            self._first = [self._begun["ram"].ended().found()]  # and right after it
        except FAILURES as error:
            for one in self._begun.values():
                one.error = one.error or error

    def _files(self) -> CacheSums:
        opened(self.source)  # only kernel memory tells which file a frame is of
        return CacheSums()

    def ram(self) -> Ram:
        """Return the look with the least doubt; see looks.closest."""
        self._ended("ram")
        return closest(lambda: self._first.pop() if self._first else look_at_ram(self.source))

    def files(self, most: int = MOST) -> FilesLook:
        """Return the page cache by file, and who is charged for it."""
        sums = self._ended("files")
        return super().files(most) if sums is None else self.named(sums.files(), most)

    def slab(self) -> KernelMemory:
        """Return the kernel's memory by name."""
        look = self._ended("slab")
        return super().slab() if look is None else look.found()

    def map(self) -> MapLook:
        """Return where in RAM its uses lie."""
        sums = self._ended("map")
        return super().map() if sums is None else MapLook(sums.found(), self.source.notes)

    def cgroups(self, *, dying: bool) -> GroupTable:
        """Return all cgroups; with ``dying`` also what keeps those that were removed."""
        look = self._ended("cgroups") if dying else None
        return super().cgroups(dying=dying) if look is None else look.found()

    def _ended(self, name: str) -> Any:
        # None if it took no part in the scan, or was asked for before.
        begun = self._begun.pop(name, None)
        return None if begun is None else begun.ended()
