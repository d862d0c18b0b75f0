"""Several processes together: what they hold, each frame once, who shares it, what would be freed.

Each address space is walked once, for its sums. A page that is mapped once is its process's alone;
only those that may be mapped more often are kept, as rows by frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from statistics import median_high
from typing import NamedTuple

import numpy as np

from pagewalk.account.table import Table, tabulate
from pagewalk.account.totals import add, no_totals
from pagewalk.model.columns import (
    I32,
    I64,
    U64,
    Amounts,
    Keeper,
    Pages,
    Shared,
    Sums,
    VMAs,
    Withheld,
    take,
)
from pagewalk.model.rules import HELD
from pagewalk.model.states import inherited
from pagewalk.proc.chosen import Chosen
from pagewalk.proc.namespace import shows_all
from pagewalk.proc.objects import Object
from pagewalk.sources import Source
from pagewalk.system.endings import Holders
from pagewalk.system.members import Looked, Member, look_at_each, opened
from pagewalk.system.peak import Highest, Peak, peak_of
from pagewalk.system.sorted_rows import SortedRows
from pagewalk.system.together import Mapping, Together
from pagewalk.walking.held import empty
from pagewalk.walking.rows import base_pages
from pagewalk.walking.walk import walk

UNTOLD = Withheld(
    "held, freed and who shares what", "the frames of pages are not visible to you; run as root",
    partial=True,
)
UNREAD = ("only the kernel's reference counts show who else holds {}, and this source does not read"
          " them; use --source ebpf")


class Child(NamedTuple):
    """A member that has anonymous memory in common with its parent, which is a member too.

    ``kept`` are bytes that it still shares with it, ``diverged`` what else of its anonymous memory
    there is, by the name of the mapping: written or mapped since the fork. ``alone`` is what
    ending it would free, its page tables included; None where withheld.
    """

    pid: int
    parent: int
    kept: int
    diverged: dict[str, int]
    alone: int | None


class Share(NamedTuple):
    """What the members of a set hold together, in bytes; None where withheld.

    ``looked`` has the members. ``held`` counts each frame once; ``freed`` is what their end frees:
    the anonymous memory that nobody else maps, and the ``objects`` that end with them, whole.
    ``elsewhere`` are the bytes of ``held`` that processes map too which are no members, None also
    where that is not known of each; ``seen`` whether this /proc shows all processes of the machine,
    None if that is not known.
    ``both`` i64[members, members] are bytes in frames that both map, 0 on the diagonal.
    ``one_more`` is what one more child costs: the median of Child.alone. ``peak`` is the most that
    they ever held.
    """

    looked: Looked
    held: int | None
    freed: int | None
    elsewhere: int | None
    seen: bool | None
    objects: tuple[Object, ...]
    both: I64 | None
    children: tuple[Child, ...]
    one_more: int | None
    peak: Peak
    withheld: tuple[Withheld, ...]


def look_at_set(chosen: Sequence[Chosen], source: str, budget_ns: int) -> Share:
    """Walk the processes of ``chosen``, each address space once, and return what they share.

    Raises SourceUnavailable and BadRequest for a source that does not exist or work here, and, if
    no process could be looked at, why the first could not.
    """
    walked = Walked()
    with closing(walked.rows):
        looked = look_at_each(chosen, source, budget_ns, walked.add)
        ending, unsure = walked.holders.ending(lambda pid: opened(pid, source, budget_ns))
        return made(walked, looked, ending, unsure)


class Walked:
    """What the members of a set that were walked so far add up to.

    ``numbers`` are those of the members whose walk succeeded, in order. ``alone`` and ``own`` are
    the bytes that only one member maps, and those of them that its end frees; ``rows`` the pages
    that may be mapped more than once, also of members whose walk failed.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.alone = self.own = 0
        self.rows = SortedRows(Mapping)
        self.places: dict[str, int] = {}
        self.holders = Holders()
        self.frames = self.all_objects = True
        self.highest = Highest()

    def add(self, number: int, pids: list[int], source: Source) -> Table:
        """Walk the address space of member ``number``; raises what a walk raises."""
        walked = walk(source, Sums)
        so_far, alone = no_totals(len(walked.vmas)), empty(1)
        forked, place = np.zeros(len(walked.vmas), bool), self.places_of(walked.vmas)
        for sums in walked:
            add(so_far, sums, walked.facts)
            if sums.amounts.mapcount is not None:
                theirs = inherited(sums.amounts)
                forked[sums.amounts.vma[theirs]] = True
                alone.add(of_one(take(sums.amounts, ~theirs)))
            if len(sums.shared):
                self.rows.add(mappings(sums.shared, number, place))
            del sums
        self.add_inherited(number, source, walked.vmas.ranges[forked])
        table = tabulate(walked, so_far)
        self.alone += int(alone.frames[0])
        self.own += int(alone.own[0])
        self.frames &= walked.tells.frames and not walked.facts.average_mapcounts
        self.all_objects &= walked.outcome.all_objects
        self.holders.add(pids, walked.vmas, walked.outcome)
        self.highest = self.highest.and_of(source, table)
        self.numbers.append(number)
        return table

    def add_inherited(self, number: int, source: Source, ranges: U64) -> None:
        """Add the anonymous pages in ``ranges`` that other processes map too, which sums lack."""
        if not len(ranges):
            return
        pages = walk(source, Pages, ranges=ranges)
        place, page = self.places_of(pages.vmas), pages.facts.page_size
        for batch in pages:
            if batch.mapcount is None:
                continue
            rows = np.flatnonzero(HELD[batch.state] & inherited(batch))
            if len(rows):
                self.rows.add(mappings(shared_pages(take(batch, rows), page), number, place))

    def places_of(self, vmas: VMAs) -> I32:
        """Return the number of each VMA's name."""
        return np.array([self.places.setdefault(name, len(self.places)) for name in vmas.name],
                        np.int32)

    def in_order(self) -> Iterator[Mapping]:
        """Yield the rows of the members by frame, with the members' positions for numbers."""
        position = np.full(max(self.numbers) + 1, -1, np.int32)
        position[self.numbers] = np.arange(len(self.numbers))
        for batch in self.rows.batches():
            known = take(batch, batch.mm < len(position))
            known = replace_mm(known, position[known.mm])
            yield take(known, known.mm >= 0)


def of_one(amounts: Amounts) -> Amounts:
    """Return ``amounts`` as those of one VMA."""
    return Amounts(np.zeros(len(amounts), np.int64), amounts.state, amounts.level, amounts.flags,
                   amounts.size, amounts.kflags, amounts.mapcount)


def shared_pages(pages: Pages, page_size: int) -> Shared:
    """Return anonymous ``pages`` as Shared, a row for each base page."""
    assert pages.pfn is not None and pages.mapcount is not None
    per, _, step = base_pages(pages.size, page_size)
    return Shared(
        np.repeat(pages.vma, per), np.repeat(pages.pfn, per) + step,
        np.full(len(step), page_size, np.uint64), np.repeat(pages.mapcount, per),
        np.full(len(step), Keeper.MAPPINGS.value, np.uint8))


def mappings(rows: Shared, number: int, place: I32) -> Mapping:
    """Return pages of member ``number`` that may be mapped more often; ``place`` is by VMA."""
    return Mapping(rows.pfn.astype(np.int64), np.full(len(rows), number, np.int32),
                   place[rows.vma], rows.size.astype(np.int64), rows.mapcount.astype(np.int64),
                   rows.keeper)


def replace_mm(rows: Mapping, mm: I32) -> Mapping:
    return Mapping(rows.pfn, mm, rows.place, rows.size, rows.mapcount, rows.keeper)


def made(
    walked: Walked, looked: Looked, ending: Sequence[Object], unsure: Sequence[Object]
) -> Share:
    members = looked.members
    by_pid = {pid: row for row, one in enumerate(members) for pid in one.pids}
    together = Together([by_pid.get(one.parent, -1) for one in members])
    together.add(walked.in_order())
    known = walked.frames
    family = tuple(children(members, by_pid, together, list(walked.places)))
    sure = known and walked.all_objects and not unsure
    objects = sum(one.resident for one in ending)
    costs = [child.alone for child in family if child.alone is not None]
    held = walked.alone + together.held if known else None
    return Share(
        looked=looked, objects=tuple(ending), held=held,
        freed=walked.own + together.own + objects if sure else None,
        elsewhere=together.elsewhere if known and not together.unsure else None,
        seen=shows_all(),
        both=together.both if known else None, children=family if known else (),
        one_more=median_high(costs) if costs else None,
        peak=peak_of(by_pid, held, walked.highest),
        withheld=(*withheld(walked, looked, unsure), *uncounted(together.unsure if known else 0)),
    )


def children(
    members: Sequence[Member], by_pid: dict[int, int], together: Together, places: list[str]
) -> Iterator[Child]:
    """Yield the members that share anonymous memory with their parent, a member too."""
    kept: dict[int, dict[str, int]] = {}
    for (row, place), size in together.kept.items():
        kept.setdefault(row, {})[places[place]] = size
    for row, names in sorted(kept.items()):
        one = members[row]
        diverged = {name: size - names.get(name, 0) for name, size in one.anon.items()}
        freed, tables = one.amounts["freed"], one.page_tables
        yield Child(
            one.pids[0], members[by_pid[one.parent]].pids[0], sum(names.values()),
            {name: size for name, size in diverged.items() if size},
            None if freed is None or tables is None else freed + tables,
        )


def uncounted(unsure: int) -> Iterator[Withheld]:
    if unsure:
        yield Withheld("what others map too", f"{unsure} bytes were being migrated, or are in a"
                       " hugetlb page table that processes share: how often they are mapped is not"
                       " known")


def withheld(walked: Walked, looked: Looked, unsure: Sequence[Object]) -> Iterator[Withheld]:
    # Whether an object ends with one member says nothing of the set.
    yield from (row for row in looked.tried.withheld if row.what != "freed")
    if not walked.frames:
        yield UNTOLD
    if unsure:
        unread = looked.tried.source == "procfs"
        why = UNREAD if unread else "who else holds {} changed whenever it was read"
        yield Withheld("freed", why.format(unsure[0].name), partial=not unread)
