"""Look at all of RAM: count its frames, with the kernel's own numbers read around them."""

from __future__ import annotations

from typing import NamedTuple

from pagewalk.account.ledger import Line
from pagewalk.kernel.structs.vmap_areas import AreaSums, of_areas
from pagewalk.model.columns import Withheld, join, partial
from pagewalk.model.errors import PagewalkError, SourceUnavailable
from pagewalk.model.frames import Frames, Kind
from pagewalk.proc.totals import Totals
from pagewalk.sources.ram import COUNTERS, RamSource
from pagewalk.system.cached import CacheSums, unowned
from pagewalk.system.census import NOWHERE, Census, Count, KernelFrames
from pagewalk.system.files import Deleted, deleted_files
from pagewalk.system.headroom import Headroom, headroom, protected
from pagewalk.system.kernel_places import KernelPlaces, kernel_places
from pagewalk.system.labels import ByBacking, ByObject
from pagewalk.system.ram import UNTOLD, Labels, parts_of
from pagewalk.system.ram_causes import Counted, first_chunk
from pagewalk.system.ram_counters import parts_from
from pagewalk.system.ram_ledger import ram_ledger
from pagewalk.system.survey import groups_of

# Frames between two readings of the kernel's numbers: what moves there and back shows.
BETWEEN = 1 << 20
NO_PLACES = KernelPlaces(NOWHERE, None, ())


class Ram(NamedTuple):
    """What all of RAM is used for.

    ``total`` is all System RAM in bytes; ``parts`` are bytes by the names of ram.PARTS and add up
    to it. ``file_systems`` are bytes in cache by file system: (mapped, not mapped). ``lines`` is
    the ledger against meminfo, ``headroom`` in bytes: empty and None if frames were not seen;
    from procfs ``headroom`` is None. ``protected`` is at most what memory.min keeps of that, None
    if the groups cannot be read.
    ``totals`` is the kernel's last reading; ``vmalloc`` who asked for memory that the kernel maps,
    ``deleted`` what deleted files have in RAM; both None if that is not known. ``mapped`` are
    bytes of RAM that processes map, each page once, as the kernel counts them (without hugetlb
    pages) if frames were not seen.
    """

    source: str
    total: int | None
    parts: dict[str, int] | None
    file_systems: dict[str, tuple[int, int]]
    lines: list[Line]
    headroom: Headroom | None
    totals: Totals
    withheld: tuple[Withheld, ...]
    vmalloc: AreaSums | None = None
    deleted: Deleted | None = None
    protected: int | None = None
    mapped: int | None = None

    @property
    def partial(self) -> list[str]:
        """Return what rights or a race took away."""
        return partial(self.withheld)


def look_at_ram(source: RamSource) -> Ram:
    """Read all of RAM from ``source``; raises SourceUnavailable, NotPermitted, BadText."""
    if source.name == COUNTERS:
        return _by_counters(source)
    look = RamLook(source)
    for frames in source.frames():
        look.add(frames)
    return look.found()


class RamLook:
    """Counts batches of frames, given to ``add``, what each is used for; ``found`` ends it.

    The kernel's own numbers are read when it is made, now and then, and at the end: begin the scan
    at once, and end it at once. Raises SourceUnavailable, BadText.
    """

    def __init__(self, source: RamSource) -> None:
        assert source.ranges is not None
        self._source, running = source, source.running
        self._objects = None if running is None else ByObject(running.kernel)
        backing = None if running is None else ByBacking(running.kernel).of
        self._count = Count(source.facts.pmd_order,
                            None if self._objects is None else self._objects.of, backing)
        self._own = KernelFrames(source.ranges[-1][1])
        self._areas: list[Frames] = []
        self._cache = CacheSums()
        self._since = 0
        self._readings = [source.totals(refresh=True)]

    def add(self, frames: Frames) -> None:
        """Count a batch."""
        self._count.add(frames)
        self._own.add(frames)
        running = self._source.running
        if running is not None:
            self._areas.append(of_areas(running.kernel, frames))
            self._cache.add(unowned(frames))
        self._since += int(frames.pages.sum())
        if self._since >= BETWEEN:
            self._readings.append(self._source.totals())
            self._since = 0

    def found(self) -> Ram:
        """Return what was found."""
        source, page = self._source, self._source.facts.page_size
        places = (kernel_places(source.running, join(self._areas)) if source.running else
                  NO_PLACES)
        readings = [*self._readings, source.totals(refresh=True)]
        deleted, unnamed = _deleted(source, self._cache)
        census = self._count.census
        labels = UNTOLD if self._objects is None else self._objects.labels
        parts = parts_of(census, labels, self._own.uses(places.placed))
        told = places.asked is not None
        chunk = first_chunk(places.static_percpu, source.possible_cpus(), parts.get("percpu", 0),
                            page)
        seen = Counted(census, labels, parts, page, source.facts.cpus, told, source.generations(),
                       chunk)
        room = headroom(census, labels) if labels.told else None
        return Ram(
            source=source.name,
            total=int(census.pages.sum()) * page,
            parts={name: pages * page for name, pages in parts.items()},
            file_systems=_by_file_system(census, labels, page) if labels.told else {},
            lines=ram_ledger(seen, readings),
            headroom=None if room is None else Headroom(*(pages * page for pages in room)),
            totals=readings[-1],
            withheld=(*source.notes, *readings[-1].withheld, *places.withheld, *unnamed),
            vmalloc=places.asked, deleted=deleted, protected=_protected(source),
            mapped=census.count(census.mapped) * page,
        )


def _deleted(
    source: RamSource, cache: CacheSums
) -> tuple[Deleted | None, tuple[Withheld, ...]]:
    running = source.running
    if running is None:
        return None, ()
    try:
        return deleted_files(running.kernel, running.direct_map, cache.files(),
                             source.facts.page_size), ()
    except (OSError, PagewalkError) as error:
        return None, (Withheld("deleted files", str(error), partial=True),)


def _protected(source: RamSource) -> int | None:
    try:
        return None if source.running is None else protected(groups_of(source), 0)
    except SourceUnavailable:
        return None  # no memory cgroups, so nothing is


def _by_counters(source: RamSource) -> Ram:
    totals = source.totals()
    total, parts = parts_from(totals, source.facts.page_size)
    unread = totals.withheld
    if parts is None and not unread:
        unread = (Withheld("what RAM is used for", "the counters moved while they were read; try"
                           " again", partial=True),)
    counted = totals.meminfo or {}
    mapped = counted["AnonPages"] + counted["Mapped"] if counted else None
    return Ram(source.name, total, parts, {}, [], None, totals, (*source.notes, *unread),
               mapped=mapped)


def _by_file_system(census: Census, labels: Labels, page: int) -> dict[str, tuple[int, int]]:
    cached = census.of(Kind.FILE, Kind.SHMEM)
    found = {}
    for at, name in enumerate(labels.names):
        rows = cached & (census.label == at)
        if census.count(rows):
            mapped = census.count(rows & census.mapped) * page
            found[name] = (mapped, census.count(rows) * page - mapped)
    return found
