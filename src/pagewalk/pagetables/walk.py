"""The page-table walk: one loop for every architecture, level by level, with memory by callback.

Tables are read whole, all tables of a level together, and decoded as columns. The walk goes depth
first over groups of tables, so that it yields in address order and holds one group per level,
however large the target. Nothing here does I/O or keeps state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from pagewalk.model.columns import I64, U64, take
from pagewalk.pagetables import decode
from pagewalk.pagetables.decode import Doubts, Entries, ReadTables, Root, Scope, Tables
from pagewalk.pagetables.format import Arch


def walk_tables(
    arch: Arch,
    root: Root,
    read_tables: ReadTables,
    ranges: U64,
    *,
    batch: int = 1 << 17,
    retries: int = 0,
    tables: I64 | None = None,
) -> Iterator[Entries]:
    """Walk the tables under ``root`` and yield what maps ``ranges``, in address order.

    ``root``: physical address of the top table, bytes, or of several (see Scope).
    ``read_tables(phys u64[n])`` returns (entries u64[n, slots], ok bool[n]); where not ok the
    entries are ignored. ``ranges``: u64[k, 2] half open, sorted, disjoint, page aligned, inside the
    user half; nothing outside is walked or reported. A batch has at most ``batch`` leaves. Adjacent
    holes of one level are one row within a range and a batch. A huge leaf that a range cuts is
    returned in aligned pieces. Entries in doubt are walked again ``retries`` times, because live
    tables change while they are read. ``tables`` i64[6, roots] is increased by how many were read,
    by level number.

    Raises BadRequest for invalid ranges.
    """
    scope = decode.open_scope(arch, root, read_tables, ranges)._replace(seen=tables)
    return _bounded(scope, batch, retries)


def _bounded(scope: Scope, batch: int, retries: int) -> Iterator[Entries]:
    group = max(1, batch >> scope.arch.levels[-1].bits)
    limit = len(scope.roots) * scope.arch.user_end
    parts = _descend(scope, 0, decode.root_table(scope), limit, group)
    for _, part in _settle(scope, parts, group, retries):
        rest = part
        while len(rest.leaves) > batch:
            head, rest = decode.split(rest, int(rest.leaves.addr[batch]))
            yield head
        if len(rest):
            yield rest


# Yields (upto, rows): all rows below the address upto that were not yielded before.
_Parts: TypeAlias = Iterator[tuple[int, Entries]]


# Walks tables of one level and below, a group at a time; what they map ends at limit.
def _descend(scope: Scope, depth: int, tables: Tables, limit: int, group: int) -> _Parts:
    for first in range(0, len(tables), group):
        after = first + group
        end = int(tables.addr[after]) if after < len(tables) else limit
        here = take(tables, slice(first, after))
        scope.note(depth, here)
        rows, below = decode.scan(scope, depth, here)
        if len(below):
            yield from _weave(rows, _descend(scope, depth + 1, below, end, group))
        else:
            yield end, rows


# Merges rows of one level into the parts of the walk below it.
def _weave(rows: Entries, parts: _Parts) -> _Parts:
    for upto, below in parts:
        here, rows = decode.split(rows, upto)
        yield upto, decode.merge(here, below)


def _settle(scope: Scope, parts: _Parts, group: int, retries: int) -> _Parts:
    for upto, rows in parts:
        if not retries or not len(rows.doubts):
            yield upto, rows
            continue
        again = only(scope, rows.doubts)
        sure = replace(rows, doubts=take(rows.doubts, slice(0)))
        second = _descend(again, 0, decode.root_table(again), upto, group)
        yield from _weave(sure, _settle(again, second, group, retries - 1))


def only(scope: Scope, doubts: Doubts) -> Scope:
    """Return ``scope`` limited to what is in doubt; adjacent doubts in one range are one range."""
    start, end = doubts.addr, doubts.addr + doubts.size
    apart = (start[1:] != end[:-1]) | np.isin(start[1:], scope.start)
    return scope._replace(
        seen=None, start=start[np.append(True, apart)], end=end[np.append(apart, True)])
