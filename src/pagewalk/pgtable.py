"""The page-table walk: one loop for every architecture, level by level, memory by a callback.

A table is read whole, all tables of a level together, and decoded as columns. The walk goes depth
first over groups of tables, so that it yields in address order and holds one group a level,
however large the target. Nothing here does I/O or keeps state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeAlias

import numpy as np

from pagewalk.pages import I64, U32, U64, Bool, Counts, Flag, State
from pagewalk.paging import Arch
from pagewalk.scan import (
    NO_DOUBTS,
    Batch,
    Doubts,
    ReadTables,
    Space,
    Tables,
    Why,
    decode,
    in_order,
    merge,
    open_space,
    pick,
    root_table,
    scan,
    split,
)

__all__ = ["Batch", "Doubts", "Kind", "Tally", "Why", "count_tables", "walk_tables"]


def walk_tables(
    arch: Arch,
    root: int,
    read_tables: ReadTables,
    ranges: U64,
    *,
    batch: int = 1 << 17,
    retries: int = 0,
) -> Iterator[Batch]:
    """Walk the tables under ``root`` and yield what maps ``ranges``, by ascending address.

    ``root``: physical address of the top table, bytes. ``read_tables(phys u64[n])`` returns
    (entries u64[n, slots], ok bool[n]); where not ok the entries are ignored. ``ranges``:
    u64[k, 2] half open, sorted, disjoint, page aligned, inside the user half; nothing outside is
    walked or reported. A batch has at most ``batch`` leaves. Holes of one level that touch are one
    row within a range and a batch. A huge leaf that a range cuts comes as aligned pieces. Entries
    in doubt are walked again ``retries`` times, because live tables change under the reader.

    Raises BadRequest for such ranges as cannot be.
    """
    space = open_space(arch, root, read_tables, ranges)
    return _bounded(space, batch, retries)


def _bounded(space: Space, batch: int, retries: int) -> Iterator[Batch]:
    group = max(1, batch >> space.arch.levels[-1].bits)
    parts = _descend(space, 0, root_table(space), space.arch.user_end, group)
    for _, part in _settle(space, parts, group, retries):
        rest = part
        while len(rest.leaves) > batch:
            head, rest = split(rest, int(rest.leaves.addr[batch]))
            yield head
        if len(rest):
            yield rest


# Yield (upto, rows): the rows are all there is below the address upto that was not yielded before.
_Parts: TypeAlias = Iterator[tuple[int, Batch]]


# Walk tables of one level and what is below, a group at a time; what they map ends at limit.
def _descend(space: Space, depth: int, tables: Tables, limit: int, group: int) -> _Parts:
    for first in range(0, len(tables), group):
        after = first + group
        end = int(tables.addr[after]) if after < len(tables) else limit
        rows, below = scan(space, depth, pick(tables, slice(first, after)))
        if len(below):
            yield from _weave(rows, _descend(space, depth + 1, below, end, group))
        else:
            yield end, rows


# Rows of one level, dealt out over the parts of the walk below it.
def _weave(rows: Batch, parts: _Parts) -> _Parts:
    for upto, below in parts:
        here, rows = split(rows, upto)
        yield upto, merge(here, below)


def _settle(space: Space, parts: _Parts, group: int, retries: int) -> _Parts:
    for upto, rows in parts:
        if not retries or not len(rows.doubts):
            yield upto, rows
            continue
        again = _only(space, rows.doubts)
        sure = replace(rows, doubts=pick(rows.doubts, slice(0)))
        second = _descend(again, 0, root_table(again), upto, group)
        yield from _weave(sure, _settle(again, second, group, retries - 1))


# The space cut down to what is in doubt; touching doubts of one range are one range.
def _only(space: Space, doubts: Doubts) -> Space:
    start, end = doubts.addr, doubts.addr + doubts.size
    apart = (start[1:] != end[:-1]) | np.isin(start[1:], space.start)
    return replace(space, start=start[np.append(True, apart)], end=end[np.append(apart, True)])


class Kind(IntEnum):
    """What count_tables tells apart (the columns of Tally.size)."""

    PAGE = 0  # a present base page with a normal struct page, PROT_NONE included
    SPECIAL = 1  # present without one, of any size: the zero page, PFN maps
    HUGE_PMD = 2  # present, mapped by a PMD leaf
    HUGE_PUD = 3
    SWAP = 4
    MIGRATION = 5
    DEVICE = 6
    HWPOISON = 7
    POISON = 8  # a marker that says so
    GUARD = 9
    MARKER = 10
    SOFT = 11  # a software entry of a type this kernel did not explain
    EMPTY = 12  # an empty slot of a PTE table
    PMD_NONE = 13  # no PTE table: the PMD entry is none; and so on up
    PUD_NONE = 14
    P4D_NONE = 15
    PGD_NONE = 16
    DOUBT = 17

    @property
    def state(self) -> State | None:
        """Return the state of such pages; None for a doubt."""
        return _STATES[self]


_STATES = {
    Kind.PAGE: State.PRESENT,
    Kind.SPECIAL: State.SPECIAL,
    Kind.HUGE_PMD: State.PRESENT,
    Kind.HUGE_PUD: State.PRESENT,
    Kind.SWAP: State.SWAPPED,
    Kind.MIGRATION: State.MIGRATING,
    Kind.DEVICE: State.DEVICE,
    Kind.HWPOISON: State.POISONED,
    Kind.POISON: State.POISONED,
    Kind.GUARD: State.GUARD,
    Kind.MARKER: State.MARKER,
    Kind.SOFT: State.SOFT,
    Kind.EMPTY: State.EMPTY,
    Kind.PMD_NONE: State.NOT_MAPPED,
    Kind.PUD_NONE: State.NOT_MAPPED,
    Kind.P4D_NONE: State.NOT_MAPPED,
    Kind.PGD_NONE: State.NOT_MAPPED,
    Kind.DOUBT: None,
}

# Flags that decide a leaf's Kind; the last match wins. What matches none is SOFT.
_BY_FLAGS = (
    (np.uint32(Flag.SWAP), Kind.SWAP),
    (np.uint32(Flag.MIGRATION), Kind.MIGRATION),
    (np.uint32(Flag.DEVICE), Kind.DEVICE),
    (np.uint32(Flag.HWPOISON), Kind.HWPOISON),
    (np.uint32(Flag.MARKER), Kind.MARKER),
    (np.uint32(Flag.MARKER | Flag.HWPOISON), Kind.POISON),
    (np.uint32(Flag.MARKER | Flag.GUARD), Kind.GUARD),
    (np.uint32(Flag.PRESENT), Kind.PAGE),
    (np.uint32(Flag.PRESENT | Flag.SPECIAL), Kind.SPECIAL),
)


@dataclass(frozen=True, slots=True)
class Tally:
    """Bytes by range and Kind, which add up to every range's length.

    ``size`` u64[k, len(Kind)] bytes; ``tables`` i64[6], the tables read, by level number;
    ``doubts`` what remained in doubt.
    """

    size: U64
    tables: I64
    doubts: Doubts

    def counts(self) -> Counts:
        """Return the bytes as Counts, one row for each range and Kind met; doubts are left out."""
        row, kind = np.nonzero(self.size[:, : Kind.DOUBT])
        states = np.array([k.state for k in Kind if k.state is not None], np.uint8)
        huge = (kind == Kind.HUGE_PMD) | (kind == Kind.HUGE_PUD)
        flags = np.where(huge, Flag.HUGE, 0).astype(np.uint32)
        return Counts(row.astype(np.int64), states[kind], flags, self.size[row, kind])


# PTE tables read at a time when counting: 1 MiB, so that they stay in the cache.
_CACHED = 256
_GROUP = 512


def count_tables(
    arch: Arch, root: int, read_tables: ReadTables, ranges: U64, *, retries: int = 0
) -> Tally:
    """Count what maps each of ``ranges``, without looking at single pages where none is odd.

    Arguments and errors are those of ``walk_tables``, and so are the sums.
    """
    space = open_space(arch, root, read_tables, ranges)
    tables = np.zeros(max(level.number for level in arch.levels) + 1, np.int64)
    size, doubts = _count(space, tables)
    for _ in range(retries):
        if not len(doubts):
            break
        again = _only(space, doubts)
        owner = np.searchsorted(space.start, again.start, side="right") - 1
        more, doubts = _count(again, np.zeros_like(tables))
        size[:, Kind.DOUBT] = 0
        np.add.at(size, owner, more)
    return Tally(size, tables, doubts)


def _count(space: Space, tables: I64) -> tuple[U64, Doubts]:
    size = np.zeros((len(space.start), len(Kind)), np.uint64)
    last = len(space.arch.levels) - 1
    doubts = [NO_DOUBTS]
    # a stack, deepest level on top, so that few tables wait however large the target
    todo = [(0, root_table(space))] if len(space.start) else []
    while todo:
        depth, waiting = todo.pop()
        group = _CACHED if depth == last else _GROUP
        here = waiting
        if len(waiting) > group:
            here = pick(waiting, slice(group))
            todo.append((depth, pick(waiting, slice(group, None))))
        number = space.arch.levels[depth].number
        tables[number] += len(here)
        entries, ok = space.read_tables(here.phys)
        if depth == last:
            odd = _count_plain(space, here, entries, ok, size)
            here, entries, ok = pick(here, odd), entries[odd], ok[odd]
        if len(here):
            rows, below = decode(space, depth, here, entries, ok)
            _add(space, size, number, rows)
            doubts.append(rows.doubts)
            if len(below):
                todo.append((depth + 1, below))
    return size, in_order(doubts)


# Count the PTE tables that lie in one range and hold ordinary pages and empty slots only; return
# the rows of the others.
def _count_plain(space: Space, tables: Tables, entries: U64, ok: Bool, size: U64) -> I64:
    level = space.arch.levels[-1]
    owner = np.searchsorted(space.start, tables.addr, side="right") - 1
    whole = (owner >= 0) & (tables.addr + np.uint64(level.span) <= space.end[owner])
    pages = np.where(ok & whole, _plain_pages(space.arch, entries), -1)
    done = pages >= 0
    page = np.uint64(1 << level.shift)
    empty = (1 << level.bits) - pages[done]
    np.add.at(size[:, Kind.PAGE], owner[done], pages[done].astype(np.uint64) * page)
    np.add.at(size[:, Kind.EMPTY], owner[done], empty.astype(np.uint64) * page)
    return np.flatnonzero(~done)


# How many pages each table holds, i64; -1 where something in it is neither plain nor zero.
def _plain_pages(arch: Arch, entries: U64) -> I64:
    bits_set, bits_clear = (np.uint64(bits) for bits in arch.plain(arch))
    every = np.bitwise_and.reduce(entries, axis=1)
    some = np.bitwise_or.reduce(entries, axis=1)
    full = ((every & bits_set) == bits_set) & ((some & bits_clear) == 0)
    pages = np.where(full, entries.shape[1], -1)
    rest = np.flatnonzero(~full)
    if len(rest):
        words = entries[rest]
        plain = ((words & (bits_set | bits_clear)) == bits_set).sum(axis=1)
        zero = (words == 0).sum(axis=1)
        pages[rest] = np.where(plain + zero == entries.shape[1], plain, -1)
    end = np.uint64(arch.last_ram_frame + 1 << arch.page_shift)
    # no frame is beyond what all of a table's frames ORed give
    if (arch.address(arch, some) >= end).any():
        pages[arch.address(arch, entries).max(axis=1) >= end] = -1
    return pages


def _add(space: Space, size: U64, number: int, rows: Batch) -> None:
    leaves, holes, doubts = rows.leaves, rows.holes, rows.doubts
    leaf_size = np.uint64(1) << leaves.shift.astype(np.uint64)
    for addr, kind, amount in (
        (leaves.addr, _kinds(leaves.flags, number), leaf_size),
        (holes.addr, np.full(len(holes), Kind.EMPTY + number - 1), holes.size),
        (doubts.addr, np.full(len(doubts), Kind.DOUBT), doubts.size),
    ):
        if len(addr):
            owner = np.searchsorted(space.start, addr, side="right") - 1
            np.add.at(size, (owner, kind), amount)


def _kinds(flags: U32, number: int) -> I64:
    kind = np.full(len(flags), Kind.SOFT, np.int64)
    if not len(flags):
        return kind
    for wanted, name in _BY_FLAGS:
        kind[(flags & wanted) == wanted] = name
    if number > 1:
        kind[kind == Kind.PAGE] = Kind.HUGE_PMD if number == 2 else Kind.HUGE_PUD
    return kind
