"""Random tables, walked by the library and by a scalar oracle without columns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.model.columns import Flag
from pagewalk.model.soft import SwapTypes
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.count import Memo
from pagewalk.pagetables.decode import Entries, Why
from pagewalk.pagetables.format import Arch, Era
from pagewalk.pagetables.walk import walk_tables
from tests.memory import Memory
from tests.swept import DOUBT, Kinds, add, swept

# RAM ends with frame 0xffff; addresses have 40 bits.
LAST_RAM, BITS = 0xFFFF, 40
ERA = Era((6, 18), BITS, max_pfn=LAST_RAM, swap=SwapTypes.counted(1, 3, 3, 1))
FOUR, FIVE = (ARCHES["x86_64"].on(levels, ERA) for levels in (4, 5))

# The tables lie at 4 KiB, 8 KiB, ...; each may be used at any level, so cycles are common.
PLACES = tuple(0x1000 * (i + 1) for i in range(6))
OUTSIDE = (0x9000, 1 << 28, 1 << BITS)

SLOTS = st.sampled_from((0, 1, 2, 3, 254, 255, 256, 510, 511))
FRAMES = st.sampled_from((1, 7, 0x200, 0x40000 & LAST_RAM, 0xFE00, LAST_RAM, LAST_RAM + 1))
TABLES = st.builds(
    lambda phys, lost, nx: (phys | 0x67) & ~lost | nx << 63,
    st.sampled_from(PLACES + OUTSIDE),
    st.sampled_from((0, 0, 2, 4)),
    st.booleans(),
)
SMALL = st.builds(lambda pfn, bits: pfn << 12 | bits, FRAMES, st.sampled_from((0x65, 0x67, 0x225)))
HUGE = st.builds(lambda pfn, bits: pfn << 12 | bits, FRAMES, st.sampled_from((0xE7, 0x10E5)))
HIDDEN = st.builds(
    lambda pfn, bits: (~pfn & (1 << 40) - 1) << 12 | bits, FRAMES, st.sampled_from((0x120, 0x1E0))
)
SOFT = st.builds(
    lambda kind, offset: kind << 59 | (~offset & (1 << 50) - 1) << 9,
    st.integers(0, 31),
    st.sampled_from((0, 1, 2, 4, 7, 0x300, LAST_RAM, LAST_RAM + 1)),
)
ODD = st.sampled_from((0x20, 0x60, (1 << 64) - 1)) | st.integers(0, (1 << 64) - 1)
ENTRIES = TABLES | TABLES | SMALL | HUGE | HIDDEN | SOFT | ODD
SPARSE = st.dictionaries(SLOTS, ENTRIES, max_size=4)
# A table full of ordinary pages, except for a few entries.
FULL = st.builds(lambda some: {i: (0x100 + i) << 12 | 0x67 for i in range(512)} | some, SPARSE)
GRAPHS = st.lists(SPARSE | SPARSE | FULL, min_size=len(PLACES), max_size=len(PLACES))

EDGES = st.builds(
    lambda top, *slots: (
        sum(s << shift for s, shift in zip(slots, (39, 30, 21, 12), strict=True)) + (top << 48)
    ),
    st.sampled_from((0, 0, 1, 255)),
    st.sampled_from((0, 1, 2, 255)),
    *[st.sampled_from((0, 0, 1, 2, 3, 4, 100, 511))] * 3,
)
# Some of the ranges between consecutive edges, so that some are adjacent and some are not.
RANGES = st.builds(
    lambda edges, keep: [
        pair for pair, wanted in zip(pairwise(sorted(edges)), keep, strict=False) if wanted
    ],
    st.sets(EDGES, min_size=2, max_size=9),
    st.lists(st.booleans(), min_size=8, max_size=8),
)

Ranges = list[tuple[int, int]]
Found = tuple[int, int, tuple[object, ...]]
RIGHTS = Flag.WRITE | Flag.USER | Flag.EXEC
COMPARED = RIGHTS | Flag.PRESENT | Flag.SOFT | Flag.HUGE | Flag.SPECIAL | Flag.PROT_NONE


def laid_out(graph: list[dict[int, int]]) -> Memory:
    memory = Memory()
    for phys, entries in zip(PLACES, graph, strict=True):
        memory.table(phys, entries)
    return memory


def oracle(memory: Memory, arch: Arch, ranges: Ranges) -> Iterator[Found]:
    """Yield (start, end, what) of every entry that overlaps a range, one at a time."""
    yield from below(memory, arch, ranges, 0, PLACES[0], 0, RIGHTS, ())


def below(
    memory: Memory,
    arch: Arch,
    ranges: Ranges,
    depth: int,
    phys: int,
    base: int,
    rights: Flag,
    path: tuple[int, ...],
) -> Iterator[Found]:
    level = arch.levels[depth]
    words = memory.tables[phys][: 1 << level.bits].tolist()
    for slot, word in enumerate(words):
        start = base + (slot << level.shift)
        end = start + (1 << level.shift)
        if not any(low < end and start < high for low, high in ranges):
            continue
        if word & ~0x60 == 0:
            yield start, end, ("hole", level.number)
        elif level.number > 1 and word & 0x81 == 1:
            table = word & 0xF_FFFF_FFFF_F000
            if table in (phys, *path) and table >> 12 <= LAST_RAM:
                yield start, end, ("doubt", word, level.number, Why.CYCLE)
            elif table not in memory.tables:
                yield start, end, ("doubt", word, level.number, Why.TABLE)
            else:
                left = Flag(0)
                left |= Flag.WRITE if word & 2 else Flag(0)
                left |= Flag.USER if word & 4 else Flag(0)
                left |= Flag(0) if word >> 63 and depth else Flag.EXEC
                yield from below(
                    memory, arch, ranges, depth + 1, table, start, rights & left, (phys, *path)
                )
        else:
            yield start, end, leaf(arch, level.number, word, rights)


def leaf(arch: Arch, number: int, word: int, rights: Flag) -> tuple[object, ...]:
    size = {1: 0, 2: 9, 3: 18}.get(number)
    low, mask = word & 0x181, ((1 << 12 + (size or 0)) - 1) & ~0x1FFF
    if size is None or (number == 1 and low == 0x80) or (number > 1 and low == 0x100):
        return ("doubt", word, number, Why.RESERVED)
    flags = Flag.HUGE if size else Flag(0)
    present = word & 0x101 or (size and word & 0x80)
    if size and present and word & mask and (word & 1 or word & mask != mask):
        return ("doubt", word, number, Why.RESERVED)
    frame = (word if word & 1 else ~word) >> 12 & (1 << 40) - 1
    kind, offset = word >> 59, ~word >> 9 & (1 << 50) - 1
    outside = kind in (28, 29, 30) and not present
    if present:
        pfn = frame >> size << size
        flags |= Flag.PRESENT
        flags |= Flag.PROT_NONE if low in (0x100, 0x180) else Flag(0)
        if word & 0x200:
            flags, outside = flags | Flag.SPECIAL, True
        if word & 1:
            flags |= Flag.WRITE & rights if word & 2 else Flag(0)
            flags |= Flag.USER & rights if word & 4 else Flag(0)
            flags |= Flag(0) if word >> 63 else Flag.EXEC & rights
    else:
        pfn = 0
        if 24 <= kind <= 30:
            pfn = offset & (1 << (40 if len(arch.levels) == 5 else 34)) - 1
        flags |= Flag.SOFT
    if pfn > ((1 << BITS - 12) - 2 if outside else LAST_RAM):
        return ("doubt", word, number, Why.FRAME)
    return ("leaf", word, pfn, flags)


def cut(found: Iterator[Found], ranges: Ranges) -> list[Found]:
    """Cut to the ranges; join adjacent holes of one level, and the parts of one leaf."""
    rows: list[Found] = []
    for first, last, what in found:
        for low, high in ranges:
            start, end = max(first, low), min(last, high)
            if start < end:
                here = what
                if what[0] == "leaf" and (what[2] or Flag.PRESENT in what[3]):
                    here = (*what[:2], what[2] + (start - first >> 12), what[3])
                rows.append((start, end, here))
    return joined(rows, {low for low, _ in ranges})


def joined(rows: list[Found], edges: set[int]) -> list[Found]:
    out: list[Found] = []
    for start, end, what in rows:
        if out and out[-1][1] == start and start not in edges and continues(out[-1], what):
            out[-1] = (out[-1][0], end, out[-1][2])
        else:
            out.append((start, end, what))
    return out


def continues(before: Found, what: tuple[object, ...]) -> bool:
    start, end, first = before
    if first[0] == "leaf" == what[0] and first[1] == what[1] and Flag.HUGE in what[3]:
        return what[2] in (first[2] + (end - start >> 12), 0)
    return first[0] == "hole" and first == what


def rows_of(batches: list[Entries], ranges: Ranges) -> list[Found]:
    rows: list[Found] = []
    for batch in batches:
        part: list[Found] = []
        a, h, d = batch.leaves, batch.holes, batch.doubts
        columns = (a.addr, a.shift, a.entry, a.pfn, a.flags)
        for addr, shift, entry, pfn, flags in zip(*(c.tolist() for c in columns), strict=True):
            part.append((addr, addr + (1 << shift), ("leaf", entry, pfn, Flag(flags) & COMPARED)))
        for addr, size, level in zip(
            h.addr.tolist(), h.size.tolist(), h.level.tolist(), strict=True
        ):
            part.append((addr, addr + size, ("hole", level)))
        columns = (d.addr, d.size, d.entry, d.level, d.why)
        for addr, size, entry, level, why in zip(*(c.tolist() for c in columns), strict=True):
            part.append((addr, addr + size, ("doubt", entry, level, Why(why))))
        # each column is ascending; from batch to batch all of them must ascend together
        for column in (a.addr, h.addr, d.addr):
            assert (np.diff(column.astype(np.int64)) > 0).all()
        rows += sorted(part, key=lambda row: row[0])
    assert rows == sorted(rows, key=lambda row: row[0])
    return joined(rows, {low for low, _ in ranges})


@settings(max_examples=60, deadline=None)
@given(GRAPHS, RANGES, st.sampled_from((1, 64, 1 << 11, 1 << 17)), st.booleans(), st.integers(0, 1))
def test_a_walk_finds_what_a_scalar_walk_finds(
    graph: list[dict[int, int]],
    ranges: Ranges,
    bound: int,
    five: bool,
    retries: int,
) -> None:
    arch = FIVE if five else FOUR
    ranges = [(low, high) for low, high in ranges if high <= arch.user_end]
    memory = laid_out(graph)
    wanted = np.array(ranges, np.uint64).reshape(-1, 2)
    found = list(
        walk_tables(arch, PLACES[0], memory.read_tables, wanted, batch=bound, retries=retries)
    )
    assert all(len(batch.leaves) <= bound for batch in found)
    rows = rows_of(found, ranges)
    assert rows == cut(oracle(memory, arch, ranges), ranges)
    # the rows tile the ranges: no gap, no overlap, nothing outside
    for low, high in ranges:
        inside = [(start, end) for start, end, _ in rows if low <= start < high]
        assert inside[0][0] == low and inside[-1][1] == high
        assert all(a[1] == b[0] for a, b in pairwise(inside))
    assert sum(end - start for start, end, _ in rows) == sum(b - a for a, b in ranges)


@settings(max_examples=60, deadline=None)
@given(GRAPHS, RANGES, st.booleans(), st.integers(0, 1))
def test_counts_are_the_sums_of_a_walk(
    graph: list[dict[int, int]], ranges: Ranges, five: bool, retries: int
) -> None:
    arch = FIVE if five else FOUR
    ranges = [(low, high) for low, high in ranges if high <= arch.user_end]
    memory = laid_out(graph)
    wanted = np.array(ranges, np.uint64).reshape(-1, 2)
    found = swept(arch, PLACES[0], memory.read_tables, wanted, retries=retries)
    expected = Kinds()
    for entries in walk_tables(arch, PLACES[0], memory.read_tables, wanted):
        add(expected, entries, wanted)
    assert found.size == expected
    assert [sum(found.of(row).values()) for row in range(len(ranges))] == [
        high - low for low, high in ranges
    ]
    assert int(found.doubts.size.sum()) == sum(
        size for (_, kind), size in found.size.items() if kind == DOUBT
    )


@settings(max_examples=60, deadline=None)
@given(GRAPHS, st.lists(RANGES, min_size=2, max_size=3), st.booleans(), st.integers(0, 1))
def test_address_spaces_side_by_side_are_each_what_they_are_alone(
    graph: list[dict[int, int]], each: list[Ranges], five: bool, retries: int
) -> None:
    arch = FIVE if five else FOUR
    memory, roots = laid_out(graph), np.array(PLACES[: len(each)], np.uint64)
    wanted, alone, doubts = [], Kinds(), []
    for number, (root, chosen) in enumerate(zip(roots.tolist(), each, strict=True)):
        ranges = [(low, high) for low, high in chosen if high <= arch.user_end]
        begin, first = number * arch.user_end, len(wanted)
        places = np.array(ranges, np.uint64).reshape(-1, 2)
        found = swept(arch, root, memory.read_tables, places, retries=retries)
        alone.update({(first + row, kind): size for (row, kind), size in found.size.items()})
        doubts += [(begin + addr, why) for addr, why in zip(
            found.doubts.addr.tolist(), found.doubts.why.tolist(), strict=True)]
        wanted += [(begin + low, begin + high) for low, high in ranges]
    together = swept(arch, roots, memory.read_tables, np.array(wanted, np.uint64), retries=retries)
    assert together.size == alone
    assert list(zip(together.doubts.addr.tolist(), together.doubts.why.tolist(), strict=True)
                ) == doubts


@settings(max_examples=60, deadline=None)
@given(GRAPHS, GRAPHS, RANGES, RANGES, st.booleans())
def test_remembering_upper_tables_changes_nothing(
    before: list[dict[int, int]],
    after: list[dict[int, int]],
    ranges: Ranges,
    others: Ranges,
    five: bool,
) -> None:
    # The same tables again, then others, then other ranges of these: always as without a memo.
    arch = FIVE if five else FOUR
    memo = Memo()
    for graph, wanted in ((before, ranges), (before, ranges), (after, ranges), (after, others)):
        memory = laid_out(graph)
        spans = [(low, high) for low, high in wanted if high <= arch.user_end]
        places = np.array(spans, np.uint64).reshape(-1, 2)
        fresh = swept(arch, PLACES[0], memory.read_tables, places)
        again = swept(arch, PLACES[0], memory.read_tables, places, memo=memo)
        assert again.size == fresh.size
        assert again.tables == fresh.tables
        assert again.doubts.entry.tolist() == fresh.doubts.entry.tolist()
