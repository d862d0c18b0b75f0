"""The walks of `share`: what each adds to what the members of a set hold together."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from pagewalk.account.table import Table, tabulate
from pagewalk.account.totals import add, no_totals
from pagewalk.model.columns import I32, Amounts, Keeper, Pages, Shared, Sums, VMAs, take
from pagewalk.model.ranges import base_pages
from pagewalk.model.rules import HELD
from pagewalk.model.states import inherited
from pagewalk.sources import Source
from pagewalk.system.endings import Holders
from pagewalk.system.peak import Highest
from pagewalk.system.sorted_rows import SortedRows
from pagewalk.system.together import Mapping
from pagewalk.walking.at_end import check_still
from pagewalk.walking.held import empty
from pagewalk.walking.rows import Asked
from pagewalk.walking.walk import populated, walk

# Mapped more often than all members together can map it.
OFTEN = 1 << 62


class Walked:
    """What the members of a set that were walked so far add up to.

    ``numbers`` are those of the members whose walk succeeded: that of their group, of which there
    are ``groups``, or if they were walked at once, as many more. ``alone`` and ``own`` are the
    bytes that only one member maps, and those of them that its end frees; ``rows`` the pages that
    may be mapped more than once, also of members whose walk failed. Of the groups ``stay`` the end
    frees nothing: processes that are in none have the address space too, and what such a member
    has alone is ``elsewhere``.
    """

    def __init__(self, groups: int = 0, stay: Collection[int] = ()) -> None:
        self.groups, self.stay, self.numbers = groups, stay, dict[int, int]()
        self.alone = self.own = self.elsewhere = 0
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
        numbers = np.full(len(place), number, np.int32)
        for sums in walked:
            add(so_far, sums, walked.facts)
            if sums.amounts.mapcount is not None:
                theirs = inherited(sums.amounts)
                forked[sums.amounts.vma[theirs]] = True
                alone.add(of_one(take(sums.amounts, ~theirs)))
            if len(sums.shared):
                self.rows.add(mappings(sums.shared, numbers, place))
            del sums
        if forked.any():
            asked = Asked(source.space, walked.vmas, walked.vmas.ranges[forked])
            self.add_pages(asked, numbers, place)
            if source.live is not None:
                check_still(source.live, walked.vmas, walked.outcome)
        table = tabulate(walked, so_far)
        self.highest = self.highest.and_of(source, table)
        self.frames &= walked.tells.frames and not walked.facts.average_mapcounts
        self.all_objects &= walked.outcome.all_objects
        self.keep(number, number, int(alone.frames[0]), int(alone.own[0]))
        if number not in self.stay:
            self.holders.add(pids, walked.vmas, walked.outcome)
        return table

    def keep(self, group: int, number: int, alone: int, own: int) -> None:
        """Count the member of ``group``, whose rows have ``number``, as one whose walk succeeded.

        ``alone`` and ``own`` are its part of them.
        """
        self.numbers[group] = number
        self.alone += alone
        if group in self.stay:
            self.elsewhere += alone
        else:
            self.own += own

    def add_pages(self, asked: Asked, numbers: I32, place: I32) -> None:
        """Add the anonymous pages ``asked`` for that other processes map too, which sums lack."""
        for batch in populated(asked):
            if batch.mapcount is None:
                continue
            rows = np.flatnonzero(HELD[batch.state] & inherited(batch))
            if len(rows):
                pages = shared_pages(take(batch, rows), asked.page_size)
                self.rows.add(mappings(pages, numbers, place))

    def places_of(self, vmas: VMAs) -> I32:
        """Return the number of each VMA's name."""
        return np.array([self.places.setdefault(name, len(self.places)) for name in vmas.name],
                        np.int32)

    def in_order(self) -> Iterator[Mapping]:
        """Yield the rows of the members by frame, with the members' positions for numbers."""
        numbers = [self.numbers[group] for group in sorted(self.numbers)]
        position = np.full(max(numbers) + 1, -1, np.int32)
        position[numbers] = np.arange(len(numbers))
        stays = np.array([group in self.stay for group in sorted(self.numbers)], bool)
        for batch in self.rows.batches():
            known = take(batch, batch.mm < len(position))
            known = replace_mm(known, position[known.mm])
            known = take(known, known.mm >= 0)
            known.mapcount[stays[known.mm]] = OFTEN
            yield known


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


def mappings(rows: Shared, number: I32, place: I32) -> Mapping:
    """Return pages that may be mapped more often; ``number`` of the member and ``place`` by VMA."""
    return Mapping(
        rows.pfn.astype(np.int64), number[rows.vma], place[rows.vma], rows.size.astype(np.int64),
        rows.mapcount.astype(np.int64), rows.keeper)


def replace_mm(rows: Mapping, mm: I32) -> Mapping:
    return Mapping(rows.pfn, mm, rows.place, rows.size, rows.mapcount, rows.keeper)
