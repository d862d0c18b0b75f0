"""What each arena of glibc's malloc holds, and what malloc_trim(0) would give back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.heap.chunks import (
    NO_CHUNKS,
    SMALLEST,
    Chunks,
    Found,
    apart,
    in_fastbins,
    listed,
    look_through,
)
from pagewalk.heap.glibc import STATE_END, SYSTEM, TOP, Malloc, State, heaps
from pagewalk.heap.mapped import Parameters
from pagewalk.heap.memory import NONE, PAGE, Memory
from pagewalk.heap.tcache import NEW, OLD, Layout
from pagewalk.model.columns import READ, SHARED, U64, WRITE, Backing, VMAs
from pagewalk.model.ranges import distinct, holder, inside, union, without

HEADER = 48  # sizeof(struct malloc_chunk), which mtrim() keeps of a chunk
SMALLEST_TOP = 33  # MINSIZE + 1, which systrim() keeps
OFFSET = np.uint64(PAGE - 1)
# How often it is followed where the main arena mapped memory; more was planted.
MOST_STEPS = 1000


class Arena(NamedTuple):
    """One arena: its ``memory`` (u64[k, 2]), and the free chunks in it.

    ``lists`` are on the lists of its bins, ``fast`` in its fastbins; ``top`` is [start, end) of the
    chunk at the end of its memory, from which new ones are cut. ``trim``: u64[k, 2], whole pages of
    free chunks that malloc_trim(0) returns to the kernel; ``kept`` those in the top of a thread
    arena, which it never returns; ``locked`` those that it cannot return, since they are locked in
    RAM. ``whole``: its records do not contradict one another; otherwise ``lists`` are what looks
    free by its sizes alone.
    """

    state: State
    main: bool
    memory: U64
    lists: Chunks
    fast: Chunks
    top: tuple[int, int]
    trim: U64
    kept: U64
    locked: U64
    whole: bool

    @property
    def obtained(self) -> int:
        """Return the bytes that it has from the system."""
        return self.state.field(SYSTEM)

    @property
    def free(self) -> int:
        """Return the bytes of its free chunks."""
        return self.lists.total + self.fast.total + self.top[1] - self.top[0]

    @property
    def free_ranges(self) -> U64:
        """Return its free chunks, u64[n, 2], in no order."""
        top = np.array([self.top], np.uint64)
        return np.concatenate([self.lists.ranges, self.fast.ranges, top])


def memory_of(memory: Memory, malloc: Malloc) -> list[U64 | None]:
    """Return the ranges of each arena's memory, None for one whose heaps are torn."""
    main, *others = malloc.states
    return [memory_of_main(memory, main), *(heaps(memory, state) for state in others)]


def memory_of_main(memory: Memory, state: State) -> U64:
    """Return the [heap], and what was mapped because the break could not grow.

    Only the lists and the top lead there: that is followed from VMA to VMA.
    """
    ranges = heap_of(memory.vmas)
    more = ranges if state.field(SYSTEM) > (ranges[:, 1] - ranges[:, 0]).sum() else NONE
    links = [state.heads, np.array([state.field(TOP)], np.uint64)]
    for _ in range(MOST_STEPS):
        found = look_through(memory, more, (), OLD, 0).free
        more = led_to(memory, state, np.concatenate([*links, found.forward, found.back]), ranges)
        if not len(more):
            break
        ranges, links = union(np.concatenate([ranges, more])), []
    return ranges


def heap_of(vmas: VMAs) -> U64:
    # Several VMAs if somebody changed the rights of a part of it.
    return union(vmas.ranges[np.array([name == "[heap]" for name in vmas.name], bool)])


class Scanned(NamedTuple):
    """What is read of an arena: its ``memory`` (u64[k, 2]), None if its heaps are torn.

    ``brk``: where the break is, for the main arena.
    """

    state: State
    main: bool
    memory: U64 | None
    found: Found
    top: tuple[int, int]
    brk: int | None


def scan_arena(
    memory: Memory, state: State, ranges: U64 | None, known: Parameters, most: int, *, main: bool
) -> Scanned:
    """Return what looks like chunks in the arena in ``ranges``, ``most`` of them at most."""
    layout = layout_of(state)
    heap = heap_of(memory.vmas)
    brk = (int(heap[-1, 1]) if len(heap) else 0) if main else None
    if not state.used or ranges is None:
        caches = np.zeros((0, layout.words), np.uint64)
        nothing = Found(NO_CHUNKS, NO_CHUNKS, caches, whole=True)
        return Scanned(state, main, ranges, nothing, (0, 0), brk)
    sizes = tuple(SMALLEST + 16 * row for row in np.flatnonzero(state.fast).tolist())
    found = look_through(memory, ranges, sizes, layout, known.cached, most)
    return Scanned(state, main, ranges, found, top_chunk(memory, ranges, state.field(TOP)), brk)


def layout_of(state: State) -> Layout:
    """Return how the thread caches of the same glibc are laid out."""
    return OLD if len(state.fast) else NEW


def judged(scanned: Scanned, known: Parameters, locked: U64 = NONE) -> Arena:
    """Return what the arena holds, by its lists; ``locked`` u64[k, 2] is locked in RAM (mlock)."""
    state, found, top = scanned.state, scanned.found, scanned.top
    if not state.used or scanned.memory is None or not found.whole:
        return Arena(state, scanned.main, NONE, NO_CHUNKS, NO_CHUNKS, (0, 0), NONE, NONE,
                     NONE, not state.used)
    on_list, complete = listed(found.free, state.bins, state.heads)
    on_fast = in_fastbins(found.small, state.fast)
    # Where lists were changing, what looks free by its sizes is the best guess.
    lists = found.free.take(on_list) if complete else apart(found.free)
    fast = NO_CHUNKS if on_fast is None else found.small.take(on_fast)
    pages, cut, kept = trimmed(lists, fast, top, scanned.brk, known.unit)
    given = unlocked(pages, locked) if len(locked) else pages
    arena = Arena(state, scanned.main, scanned.memory, lists, fast, top,
                  np.concatenate([given, cut]), kept,
                  without(pages, given) if len(locked) else NONE,
                  complete and on_fast is not None and top[0] < top[1])
    return arena._replace(whole=arena.whole and arena.free <= arena.obtained)


def top_chunk(memory: Memory, ranges: U64, at: int) -> tuple[int, int]:
    """Return the [start, end) of the top at ``at``; (0, 0) if it is not in ``ranges``."""
    for low, high in ranges.tolist():
        if low <= at < high and at % 16 == 0:
            end = at + (int(memory.words(at, at + 16)[1]) & ~7)
            return (at, end) if at < end <= high else (0, 0)
    return 0, 0


def led_to(memory: Memory, state: State, links: U64, ranges: U64) -> U64:
    # The private anonymous VMAs that `links` lead to and that are not among `ranges`.
    vmas = memory.vmas
    own = links - np.uint64(state.addr) < np.uint64(STATE_END + state.bins - state.addr)
    out = distinct(links[~own & (links > 0) & ~inside(links, ranges)])
    rows = holder(out, vmas.ranges)
    rows = rows[inside(out, vmas.ranges)]
    private = vmas.perms[rows] & (READ | WRITE | SHARED) == READ | WRITE
    rows = rows[private & (vmas.backing[rows] == Backing.ANON.value)]
    return vmas.ranges[distinct(rows.astype(np.uint64)).astype(np.int64)]


def trimmed(
    lists: Chunks, fast: Chunks, top: tuple[int, int], brk: int | None, unit: int
) -> tuple[U64, U64, U64]:
    """Return what malloc_trim(0) drops, what it cuts off, and a thread arena's top, which it keeps.

    It first merges the fastbins with their neighbours (malloc_consolidate). Of each free chunk it
    drops the whole pages behind its header (mtrim), and at last it shrinks the top of the main
    arena by multiples of ``unit`` bytes, if that ends at the break, ``brk`` (systrim); None in a
    thread arena.
    """
    start, end = np.uint64(top[0]), np.uint64(top[1])
    if not len(fast.addr):  # then none has a free neighbour
        lists = lists.take(lists.size >= np.uint64(PAGE))
    every = np.concatenate([lists.ranges, fast.ranges, np.array([top], np.uint64)])
    # What lies after the top is no neighbour of it: in between may be what others took by sbrk(2).
    late = every[:, 0] > start
    merged = np.concatenate([union(every[~late]), union(every[late])])
    is_top = merged[:, 1] == end
    low = merged[:, 0] + np.uint64(HEADER) + OFFSET & ~OFFSET
    pages = np.stack([low, merged[:, 1] & ~OFFSET], axis=1)
    some = pages[:, 0] < pages[:, 1]
    rest, last = pages[some & ~is_top], pages[some & is_top]
    if brk is None:
        return rest, NONE, last
    if brk != top[1]:
        return rest, NONE, NONE
    first = min(merged[is_top][:, 0].tolist(), default=top[1])
    drop = max(top[1] - first - SMALLEST_TOP, 0) & -unit
    return rest, np.array([[top[1] - drop, top[1]]], np.uint64), NONE


def unlocked(ranges: U64, locked: U64) -> U64:
    """Return what MADV_DONTNEED drops of each of ``ranges``: all before the first locked VMA.

    There it ends with an error (madvise_walk_vmas, mm/madvise.c). Both are u64[k, 2], ``locked``
    sorted. What brk(2) takes away may be locked.
    """
    ends = np.append(locked[:, 1], ~np.uint64(0))
    starts = np.append(locked[:, 0], ~np.uint64(0))
    first = starts[np.searchsorted(ends, ranges[:, 0], side="right")]
    end = np.minimum(ranges[:, 1], first)
    return np.stack([ranges[:, 0], end], axis=1)[ranges[:, 0] < end]
