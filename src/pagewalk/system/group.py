"""Look at one cgroup: what it is charged for, and what of it its processes map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from pagewalk.account.ledger import Line
from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.memcgs import Memcgs
from pagewalk.kernel.structs.tasks import hidden_processes
from pagewalk.kernel.structs.vmap_areas import of_areas
from pagewalk.model.columns import I64, Bool, Withheld, join, partial, take
from pagewalk.model.errors import BadTarget, NoAddressSpace, PagewalkError, ProcessGone
from pagewalk.model.frames import Frames
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.proc.cgroups import KERNEL, not_charged
from pagewalk.proc.totals import Totals
from pagewalk.sources.ram import COUNTERS, RamSource
from pagewalk.system.cached import CacheSums
from pagewalk.system.census import Census, KernelFrames
from pagewalk.system.charge import Charge
from pagewalk.system.files import FilesReport, name_files
from pagewalk.system.group_counters import parts_from
from pagewalk.system.group_ledger import group_ledger
from pagewalk.system.headroom import Headroom, headroom, protected, swap_room
from pagewalk.system.kernel_places import area_places
from pagewalk.system.mapped import KINDS, ByProcess, ChargedFrames, MappedPages
from pagewalk.system.ram import NO_LABELS, parts_of
from pagewalk.system.survey import (
    Survey,
    below,
    groups_of,
    objects_of,
    of_groups,
    opened,
    outermost_removed,
    stocks,
    survey,
)
from pagewalk.system.unused import Unused, beside, unused_of

FILES = 20  # of each sort, by name


class Objects(NamedTuple):
    """Kernel objects of one cache: how many, and the bytes that are charged for them."""

    cache: str
    objects: int
    bytes: int
    reclaimable: bool


class Dying(NamedTuple):
    """How many removed groups live on; bytes that the kernel says they use, and that were found.

    What the kernel says may be what a group used when it was removed: see outermost_removed.
    """

    groups: int
    charged: int
    found: int


class Group(NamedTuple):
    """What a cgroup and those below it are charged for, in bytes.

    ``parts`` are pages by the names of ram.PARTS; ``objects`` kernel objects by cache, the largest
    first. ``mapped`` is what its processes map of its pages, by kind (see mapped.KINDS), None if it
    has processes and none of them could be looked at; ``elsewhere`` what they map that others are
    charged for, and ``uncharged`` what nobody is, by name of the mapping; ``by_others`` what only
    processes outside map of its pages, by kind, None if not all processes could be looked at.
    ``processes`` one row each, the largest first; ``not_looked`` those that could not be looked at
    (0: one that /proc does not show), and why. ``numbers`` are the kernel's, before and after.
    ``below`` are the groups directly below it, with what the kernel says they use; ``dying`` the
    removed groups below it that live on. ``headroom`` is what of the charge could be reclaimed,
    kernel objects included; of its ``swappable`` at most ``swap_room`` have a place in swap, and at
    most ``protected`` of all that memory.min of groups below keeps. ``above`` are the groups above
    it, the nearest first, and the kernel's numbers for them.

    From counters alone (see group_counters.py) ``charge`` and whatever needs frames are None.
    """

    path: str
    version: int
    charge: Charge | None
    parts: dict[str, int]
    objects: tuple[Objects, ...]
    mapped: dict[str, int] | None
    elsewhere: dict[str, int]
    uncharged: dict[str, int]
    by_others: dict[str, int] | None
    processes: tuple[ByProcess, ...]
    not_looked: tuple[tuple[int, str], ...]
    files: FilesReport | None
    numbers: tuple[GroupNumbers, ...]
    lines: list[Line]
    headroom: Headroom | None
    swap_room: int | None
    above: tuple[tuple[str, GroupNumbers], ...]
    below: tuple[tuple[str, int], ...]
    dying: Dying | None
    withheld: tuple[Withheld, ...]
    protected: int | None = None

    @property
    def partial(self) -> list[str]:
        """Return what rights or a race took away."""
        return partial(self.withheld)


class Asked(NamedTuple):
    """What is asked about a group while it is looked at.

    ``inode`` is that of its directory; ``numbers`` reads the kernel's numbers for it, ``pids``
    lists the processes in it and below, ``walk`` hands the pages of one to MappedPages, ``below``
    lists the groups directly below it, with what the kernel says they use, ``above`` those above
    it, the nearest first, with the kernel's numbers.
    """

    path: str
    version: int
    inode: int
    numbers: Callable[[], GroupNumbers]
    pids: Callable[[], list[int]]
    walk: Callable[[int, MappedPages], None]
    below: Callable[[], list[tuple[str, int]]]
    above: Callable[[], list[tuple[str, GroupNumbers]]]


def look_at_group(source: RamSource, asked: Asked) -> Group:
    """Scan RAM for what the group ``asked`` about is charged for, then walk its processes.

    Where frames are not visible it is what counters tell. Raises NotPermitted, SourceUnavailable,
    BadText, and what ``asked`` raises if it is gone.
    """
    if source.name == COUNTERS:
        return by_counters(source, asked)
    groups = groups_of(source)
    inside = below(groups, row_of(groups, asked))
    labels = np.concatenate(([False], inside))
    assert source.ranges is not None
    end, running = source.ranges[-1][1], opened(source)
    charged, cache, kernel, areas = ChargedFrames(end, labels), CacheSums(), KernelFrames(end), []

    def listen(frames: Frames, by_group: I64) -> None:
        charged(frames, by_group)
        mine = take(frames, labels[by_group])
        cache.add(mine)
        kernel.add(mine)
        areas.append(of_areas(running.kernel, frames))

    numbers, totals = [asked.numbers()], [source.totals(refresh=True)]
    found = survey(source, groups, [listen])
    placed, missing = area_places(running, join(areas))
    last, unused = beside(asked.numbers, lambda: unused_of(running, groups, inside, found.objcgs))
    numbers, totals = [*numbers, last], [*totals, source.totals(refresh=True)]
    hidden = hidden_processes(running.kernel, groups.memcg[inside]).tolist()
    mapped, not_looked = walk_processes(source, asked, charged, hidden)
    files = name_files(
        running.kernel, running.direct_map, cache.files(), source.facts.page_size, FILES)
    parts = parts_of(of_groups(found.census, inside), NO_LABELS, kernel.uses(placed))
    group = made(source, asked, found, inside, parts, bool(placed.names), mapped, not_looked,
                 files, numbers, totals, unused)
    return group._replace(withheld=(*group.withheld, *missing))


def by_counters(source: RamSource, asked: Asked) -> Group:
    """Return what the kernel counts for the group; raises what ``asked`` raises."""
    before, numbers = asked.numbers(), asked.numbers()
    parts = parts_from(numbers, asked.version)
    why = "frames are not visible to you"
    told = () if parts is not None else (
        Withheld("what the charge is made of", "there is no memory.stat", partial=True),)
    return Group(
        path=asked.path, version=asked.version, charge=None, parts=parts or {}, objects=(),
        mapped=None, elsewhere={}, uncharged={}, by_others=None, processes=(),
        not_looked=tuple((pid, why) for pid in asked.pids()), files=None,
        numbers=(before, numbers), lines=[], headroom=None,
        swap_room=None, above=tuple(asked.above()), below=tuple(asked.below()), dying=None,
        withheld=(*source.notes, *not_charged(asked.version), *told),
    )


def row_of(groups: Memcgs, asked: Asked) -> int:
    """Return the row of the group ``asked`` about; raises BadTarget if it has gone meanwhile."""
    rows = np.flatnonzero((groups.inode == asked.inode) & ~groups.removed)
    if not len(rows):
        asked.numbers()  # which says if it has gone
        raise BadTarget(f"cgroup {asked.path} has no memory controller, or was removed meanwhile")
    return int(rows[0])


def walk_processes(
    source: RamSource, asked: Asked, charged: ChargedFrames, hidden: list[int]
) -> tuple[MappedPages, list[tuple[int, str]]]:
    """Walk all processes of the group; return what they map, and which could not be looked at.

    ``hidden`` are those that /proc does not show, by their numbers on the host.
    """
    assert source.ranges is not None
    page_shift = source.facts.page_size.bit_length() - 1
    mapped = MappedPages(source.ranges[-1][1], charged, page_shift)
    not_looked = [(0, f"this PID namespace does not show process {pid} of the host; run there")
                  for pid in hidden]
    for pid in filter(None, asked.pids()):
        try:
            asked.walk(pid, mapped)
        except (ProcessGone, NoAddressSpace):
            continue  # it maps nothing
        except PagewalkError as error:
            not_looked.append((pid, str(error)))
    return mapped, not_looked


def made(
    source: RamSource, asked: Asked, found: Survey, inside: Bool, pages: dict[str, int],
    told: bool, mapped: MappedPages, not_looked: list[tuple[int, str]], files: FilesReport,
    numbers: list[GroupNumbers], totals: list[Totals], unused: Unused | None,
) -> Group:
    page, groups, row = source.facts.page_size, found.groups, row_of(found.groups, asked)
    census = of_groups(found.census, inside)
    objects = tuple(by_cache(found, inside))
    reclaimable = sum(one.bytes for one in objects if one.reclaimable)
    parts = {name: count * page for name, count in pages.items()}
    charge = Charge(census, reclaimable, sum(one.bytes for one in objects) - reclaimable, page,
                     source.facts.cpus, source.generations(), int(inside.sum()),
                     stocks(opened(source)), areas_of(parts, opened(source)) if told else {},
                     KERNEL not in {row.what for row in not_charged(asked.version)}, unused,
                     source.root_pairs())
    above, swap = asked.above(), (totals[-1].meminfo or {}).get("SwapFree")
    return Group(
        path=asked.path, version=asked.version, charge=charge, parts=parts, objects=objects,
        mapped=None if not_looked and not mapped.processes else {
            kind: count * page for kind, count in mapped.by_kind.items()},
        elsewhere={name: count * page for name, count in mapped.elsewhere.items()},
        uncharged={name: count * page for name, count in mapped.uncharged.items()},
        by_others=None if not_looked else by_others(census, mapped.by_kind, page),
        processes=tuple(sorted(mapped.processes, key=lambda one: -sum(one.charged.values()))),
        not_looked=tuple(not_looked), files=files, numbers=tuple(numbers),
        lines=group_ledger(charge, asked.version, numbers, totals),
        headroom=with_objects(headroom(census, NO_LABELS), charge), above=tuple(above),
        swap_room=None if swap is None else swap_room(
            swap, (numbers[-1], *(one for _, one in above))),
        below=tuple(directly_below(groups, row)),
        dying=dying_of(found, inside, page), protected=protected(groups, row),
        withheld=(*source.notes, *totals[-1].withheld, *not_charged(asked.version),
                  *withheld(not_looked)),
    )


def dying_of(found: Survey, inside: Bool, page: int) -> Dying:
    """Return what there is of removed groups among those ``inside`` (bool)."""
    removed = inside & found.groups.removed
    census, objects = of_groups(found.census, removed), objects_of(found, removed)
    usage = found.groups.usage[inside & outermost_removed(found.groups)]
    return Dying(int(removed.sum()), int(usage.sum()),
                 page * int(census.pages.sum()) + int(objects.size.sum()))


def with_objects(pages: Headroom, charge: Charge) -> Headroom:
    """Return what could be reclaimed in bytes: ``pages``, and the kernel objects of ``charge``."""
    room = Headroom(*(count * charge.page for count in pages))
    return room._replace(slab_reclaimable=room.slab_reclaimable + charge.reclaimable,
                         kernel=room.kernel + charge.unreclaimable)


def by_others(census: Census, own: dict[str, int], page: int) -> dict[str, int]:
    """Return the bytes that are mapped, though not by the processes whose pages are ``own``."""
    return {kind: page * max(0, census.count(census.of(*kinds) & census.mapped) - own[kind])
            for kind, kinds in KINDS.items()}


def areas_of(parts: dict[str, int], running: RunningKernel) -> dict[str, int]:
    """Return what of ``parts`` the kernel mapped for itself, as far as its BTF tells it apart."""
    stacks = running.kernel.btf.has("task_struct", "stack_vm_area")
    return {name: parts.get(name, 0) for name in ("vmalloc", *(["kernel_stack"] if stacks else []))}


def by_cache(found: Survey, inside: Bool) -> Iterator[Objects]:
    """Yield the kernel objects charged to the groups ``inside`` (bool), the largest cache first."""
    caches, sums = found.caches, objects_of(found, inside)
    for at in np.argsort(-sums.size, kind="stable").tolist():
        row = int(np.searchsorted(caches.address, sums.cache[at]))
        yield Objects(caches.name[row] or "not readable", int(sums.objects[at]),
                      int(sums.size[at]), bool(caches.reclaimable[row]))


def directly_below(groups: Memcgs, row: int) -> Iterator[tuple[str, int]]:
    """Yield the path and the usage of each living group right below the one at ``row``."""
    for at in np.flatnonzero((groups.parent == row) & ~groups.removed).tolist():
        yield groups.path[at], int(groups.usage[at])


def withheld(not_looked: list[tuple[int, str]]) -> Iterator[Withheld]:
    if not_looked:
        pid, why = not_looked[0]
        which = f"process {pid}: " if pid else ""
        yield Withheld("what some of its processes map", f"{len(not_looked)} could not be looked"
                       f" at; {which}{why}", partial=True)
