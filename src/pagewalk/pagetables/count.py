"""Count what page tables map, whole tables at a time if they have only ordinary entries.

Pure, like ``walk``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import numpy as np

from pagewalk.model.columns import I64, U64, take
from pagewalk.pagetables import decode
from pagewalk.pagetables.decode import Entries, ReadTables, Root, Scope, Tables
from pagewalk.pagetables.format import Arch
from pagewalk.pagetables.walk import only, walk_tables

# PTE tables read at a time when counting: 1 MiB, so that they stay in the cache; and tables of
# which only a few are read, with those above.
_CACHED = 256
_GROUP = 512
_COUNTED = 4096
# Upper tables of a level that a Memo keeps: 16 GiB of PMD tables, half a megabyte.
_KEPT = 16

# Counts the pages of whole PTE tables, (row of the range i64[n], physical address u64[n]): i64[n],
# -1 for a table with anything but ordinary pages of RAM and empty slots.
CountPlain: TypeAlias = Callable[[I64, U64], I64]


class Plain(NamedTuple):
    """Whole PTE tables of ordinary pages and empty slots, each inside one range.

    ``owner`` i64[n] is the range's row, ``addr`` u64[n] the first byte that it maps, ``phys``
    u64[n] its physical address, ``pages`` i64[n] how many pages it maps.
    """

    owner: I64
    addr: U64
    phys: U64
    pages: I64


class Sifted(NamedTuple):
    """Upper tables as they were read, and the result: tables below, and ``found`` bytes."""

    tables: Tables
    entries: U64
    below: Tables
    found: U64


@dataclass(eq=False)
class Memo:
    """What the last sweep over the same ranges (``start``, ``end`` u64) read of upper tables.

    ``levels`` has it by depth. Upper tables hardly ever change: while their words are the same,
    they need not be decoded again.
    """

    start: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))
    end: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))
    levels: dict[int, Sifted] = field(default_factory=dict)

    def open(self, scope: Scope) -> None:
        """Drop everything unless it is of the ranges and the roots of ``scope``."""
        top = self.levels.get(0)
        same = np.array_equal(self.start, scope.start) and np.array_equal(self.end, scope.end)
        if not same or (top is not None and not np.array_equal(top.tables.phys, scope.roots)):
            self.start, self.end, self.levels = scope.start, scope.end, {}


_NO_ROWS, _NO_WORDS = np.zeros(0, np.int64), np.zeros(0, np.uint64)
_NO_PLAIN = Plain(_NO_ROWS, _NO_WORDS, _NO_WORDS, _NO_ROWS)
_NO_GAPS = np.zeros((0, 0), np.uint64)


class Swept(NamedTuple):
    """A part of a sweep: entries, whole plain tables and, at the end, the gaps.

    ``gaps`` u64[6, k]: bytes without entries of each range, one row per Holes.level.
    """

    entries: Entries = decode.NO_ENTRIES
    plain: Plain = _NO_PLAIN
    gaps: U64 = _NO_GAPS


def sweep(
    arch: Arch,
    root: Root,
    read_tables: ReadTables,
    ranges: U64,
    *,
    retries: int = 0,
    count_plain: CountPlain | None = None,
    tables: I64 | None = None,
    memo: Memo | None = None,
) -> Iterator[Swept]:
    """Walk like ``walk_tables``, but unordered, and leave whole plain tables as they are.

    Holes come as ``gaps``, at the end. ``count_plain`` counts in place of count_by_reading.
    ``tables`` i64[6, roots] is increased by how many were read, by level number. ``memo`` is from
    an earlier sweep of the same process. Doubts come last, after reading them again, with holes as
    rows.
    """
    scope = decode.open_scope(arch, root, read_tables, ranges)
    memo = memo or Memo()
    memo.open(scope)
    seen = np.zeros((6, len(scope.roots)), np.int64) if tables is None else tables
    count = count_plain or (lambda owner, phys: count_by_reading(arch, read_tables, phys))
    doubts = [decode.NO_DOUBTS]
    for part in _sweep(scope, count, seen, memo):
        entries = part.entries
        if len(entries.doubts):
            doubts.append(entries.doubts)
            yield part._replace(entries=replace(entries, doubts=decode.NO_DOUBTS))
        else:
            yield part
    left = decode.in_order(doubts)
    if len(left) and retries:
        again = only(scope, left)
        unsure = np.stack([again.start, again.end], axis=1)
        yield from map(
            Swept, walk_tables(arch, root, read_tables, unsure, retries=retries - 1)
        )
    elif len(left):
        yield Swept(Entries(decode.NO_LEAVES, decode.NO_HOLES, left))


def _sweep(scope: Scope, count_plain: CountPlain, seen: I64, memo: Memo) -> Iterator[Swept]:
    last = len(scope.arch.levels) - 1
    # bytes of each range, by level number: those with entries, and of these those without tables
    found, ends = (np.zeros((7, len(scope.start)), np.uint64) for _ in range(2))
    # a stack, deepest level on top, so that few tables wait however large the target
    todo = [(0, decode.root_table(scope))] if len(scope.start) else []
    while todo:
        depth, waiting = todo.pop()
        group = _GROUP if depth < last else _COUNTED
        here = waiting
        if len(waiting) > group:
            here = take(waiting, slice(group))
            todo.append((depth, take(waiting, slice(group, None))))
        number = scope.arch.levels[depth].number
        np.add.at(seen[number], (here.addr // np.uint64(scope.arch.user_end)).astype(np.intp), 1)
        if depth == last:
            yield from _part(scope, here, count_plain, found[number], ends)
            continue
        rows, below = _upper(scope, depth, here, found[number], memo)
        if len(rows):
            _end(scope, ends, rows, number)
            yield Swept(rows)
        if len(below):
            todo.append((depth + 1, below))
    yield Swept(gaps=_gaps(scope, found, ends))


# Tables above the PTEs, decoded only if one has changed; those with leaves are never kept.
def _upper(
    scope: Scope, depth: int, tables: Tables, found: U64, memo: Memo
) -> tuple[Entries, Tables]:
    entries, ok = scope.read_tables(tables.phys)
    last = memo.levels.get(depth)
    if (
        last is not None
        and (last.tables is tables or depth == 0)
        and ok.all()
        and np.array_equal(last.entries, entries)
    ):
        found += last.found
        return decode.NO_ENTRIES, last.below
    more = np.zeros_like(found)
    entries = entries.copy() if len(tables) <= _KEPT else entries
    rows, below = decode.sift(scope, depth, tables, entries, ok, more)
    found += more
    if len(tables) <= _KEPT and ok.all() and not len(rows):
        memo.levels[depth] = Sifted(tables, entries, below, more)
    else:
        memo.levels.pop(depth, None)
    return rows, below


# Adds what a part of the walk ended with; a doubt's level is that of its entry.
def _end(scope: Scope, ends: U64, rows: Entries, number: int) -> None:
    leaves, doubts = rows.leaves, rows.doubts
    if len(leaves):
        owner = np.searchsorted(scope.start, leaves.addr, side="right") - 1
        np.add.at(ends[number], owner, leaves.size)
    if len(doubts):
        owner = np.searchsorted(scope.start, doubts.addr, side="right") - 1
        np.add.at(ends, (doubts.level.astype(np.intp), owner), doubts.size)


# The tables of a level cover what the entries above point to and that ends with nothing else.
def _gaps(scope: Scope, found: U64, ends: U64) -> U64:
    levels = scope.arch.levels
    size = np.zeros((6, len(scope.start)), np.uint64)
    covered = scope.end - scope.start - ends[levels[0].number + 1]
    for level in levels:
        size[level.number] = covered - found[level.number]
        covered = found[level.number] - ends[level.number]
    return size


# The PTE tables that are plain, and the entries of the others. Nothing that is yielded is a view of
# what was read: the caller may read on, into the same memory.
def _part(
    scope: Scope, tables: Tables, count_plain: CountPlain, found: U64, ends: U64
) -> Iterator[Swept]:
    level, depth = scope.arch.levels[-1], len(scope.arch.levels) - 1
    owner = np.searchsorted(scope.start, tables.addr, side="right") - 1
    whole = (owner >= 0) & (tables.addr + np.uint64(level.span) <= scope.end[owner])
    pages = np.full(len(tables), -1, np.int64)
    if whole.any():
        pages[whole] = count_plain(owner[whole], tables.phys[whole])
    odd = np.flatnonzero(pages < 0)
    for first in range(0, len(odd), _CACHED):
        some = take(tables, odd[first : first + _CACHED])
        batch, _ = decode.sift(scope, depth, some, *scope.read_tables(some.phys), found)
        _end(scope, ends, batch, level.number)
        if len(batch):
            yield Swept(batch)
    done = pages >= 0
    if done.any():
        plain = Plain(owner[done], tables.addr[done], tables.phys[done], pages[done])
        np.add.at(found, plain.owner, plain.pages.astype(np.uint64) << np.uint64(level.shift))
        yield Swept(plain=plain)


def count_by_reading(arch: Arch, read_tables: ReadTables, phys: U64) -> I64:
    """Count the pages of whole PTE tables at ``phys`` (u64[n]); see CountPlain."""
    pages = np.full(len(phys), -1, np.int64)
    for first in range(0, len(phys), _CACHED):
        here = slice(first, first + _CACHED)
        entries, ok = read_tables(phys[here])
        pages[here] = np.where(ok, _plain_pages(arch, entries), -1)
    return pages


# How many pages each table maps, i64; -1 if an entry is neither plain nor zero.
def _plain_pages(arch: Arch, entries: U64) -> I64:
    bits_set, bits_clear = (np.uint64(bits) for bits in arch.plain())
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
    # no frame is beyond all of a table's frames ORed together
    if (arch.address(some) >= end).any():
        pages[arch.address(entries).max(axis=1) >= end] = -1
    return pages
