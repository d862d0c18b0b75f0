"""What of a process's memory could be reclaimed while it runs, besides what its allocator frees.

The kernel drops some of it by itself when memory runs short; the rest only the program can return.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pagewalk.heap.memory import NONE, PAGE, WORD, bytes_within, total
from pagewalk.heap.stacks import Stack
from pagewalk.model.columns import U64, Backing, Bool, Pages, State, VMAs
from pagewalk.model.ranges import holder, inside, intersect, union, without
from pagewalk.model.rules import DIRTY, IN_RSS, LAZYFREE, UNEVICTABLE
from pagewalk.model.states import holds

LOOKED_AT = 500  # huge pages, 1 GiB of them on x86-64: reading takes about half a second
RED_ZONE = 128  # below the stack pointer, and still the function's own (System V ABI, x86-64)


class Marked(NamedTuple):
    """What of a process's memory is in RAM and has a mark, u64[k, 2], sorted and joined.

    ``huge``: anonymous, mapped by huge pages; ``lazyfree``: released with MADV_FREE; ``clean``:
    pages of files that are as on disk. What the kernel does not evict is in neither of these two,
    which are None where the source cannot tell. ``rss``: bytes.
    """

    huge: U64 = NONE
    lazyfree: U64 | None = NONE
    clean: U64 | None = NONE
    rss: int = 0


class Returnable(NamedTuple):
    """Bytes in RAM that could be reclaimed while the process runs; None where that is not known.

    ``lazyfree`` and ``clean_file``: see Marked. ``huge``: of anonymous memory in huge pages
    ``huge_looked_at`` were read, and ``huge_zeros`` of that are pages of zeros. ``idle_stacks``:
    below the stack pointers of the ``waiting`` threads, None where another process may run on one
    of them (vfork). ``in_all``: of these and of what malloc_trim(0) or Go's runtime would return,
    each byte counted once, out of ``rss``. ``locked``: what of anonymous memory is locked in RAM
    (mlock); ``huge_zeros``, ``idle_stacks`` and ``in_all`` have none of it.
    """

    lazyfree: int | None
    clean_file: int | None
    huge: int
    huge_looked_at: int
    huge_zeros: int
    waiting: int | None
    idle_stacks: int | None
    in_all: int
    rss: int
    locked: int | None = 0


def marked(pages: Pages, vmas: VMAs, huge: int, *, dirty: bool) -> Marked:
    """Return what is marked of ``pages``, among them huge ones of ``huge`` bytes.

    ``dirty``: their entries say whether they are.
    """
    ranges = np.stack([pages.addr, pages.addr + pages.size], axis=1)
    anon = pages.state == State.ANON.value
    lazy = clean = None
    if dirty:
        file = (pages.state == State.FILE.value) & (vmas.backing[pages.vma] == Backing.FILE.value)
        stays = holds(UNEVICTABLE, pages.flags, pages.kflags)
        lazy = union(ranges[anon & ~stays & holds(LAZYFREE, pages.flags, pages.kflags)])
        clean = union(ranges[file & ~stays & ~holds(DIRTY, pages.flags, pages.kflags)])
    whole = union(ranges[anon & (pages.size == huge)])
    return Marked(whole, lazy, clean, int(pages.size[IN_RSS[pages.state]].sum()))


def merged(parts: Sequence[Marked], locked: U64 | None) -> Marked:
    """Return ``parts`` of one process as one; pages in ``locked`` ranges are not dropped.

    Where it is not known what is locked (None), it is not known what could be dropped either.
    """
    lazy = [part.lazyfree for part in parts if part.lazyfree is not None]
    clean = [part.clean for part in parts if part.clean is not None]
    told = len(lazy) == len(parts) and locked is not None
    gone = NONE if locked is None else locked
    return Marked(
        union(np.concatenate([NONE, *(part.huge for part in parts)])),
        without(np.concatenate([NONE, *lazy]), gone) if told else None,
        without(np.concatenate([NONE, *clean]), gone) if told else None,
        sum(part.rss for part in parts),
    )


def zero_pages(fd: int, ranges: U64, huge: int) -> tuple[int, U64]:
    """Return how many bytes of ``ranges`` were read, and the pages of zeros in them, u64[k, 2].

    They are huge pages of ``huge`` bytes each. ``fd`` is a descriptor of /proc/PID/mem. At most
    LOOKED_AT of them are read, spread evenly.
    """
    starts = np.concatenate([NONE[:, 0], *(
        np.arange(low, high, huge, dtype=np.uint64) for low, high in ranges.tolist())])
    chosen = starts[:: max(1, -(-len(starts) // LOOKED_AT))]
    words = np.empty((huge // PAGE, PAGE // WORD), np.uint64)
    read, found = 0, [NONE]
    for at in chosen.tolist():
        if not filled(fd, words, at):
            continue
        read += huge
        low = np.uint64(at) + np.flatnonzero(~words.any(axis=1)).astype(np.uint64) * np.uint64(PAGE)
        found.append(union(np.stack([low, low + np.uint64(PAGE)], axis=1)))
    return read, np.concatenate(found)


def filled(fd: int, words: U64, at: int) -> bool:
    # Whether all of `words` could be read from `at` on: not where it has been unmapped meanwhile.
    try:
        return os.preadv(fd, [words.data.cast("B")], at) == words.nbytes
    except OSError as err:
        if err.errno != errno.EIO:
            raise
        return False


def idle(stacks: Sequence[Stack], main: U64, pointers: U64) -> tuple[int, U64]:
    """Return how many ``pointers`` are in stacks, and what of these lies below them, u64[k, 2].

    ``main`` u64[k, 2] is the main thread's stack, ``pointers`` u64 those of the threads that wait.
    Where a stack has several, as of a thread that was given a part of another one's, the lowest
    counts.
    """
    rows = [[stack.start, stack.end] for stack in stacks if stack.tid]
    ranges = np.concatenate([NONE, main, np.array(rows, np.uint64).reshape(-1, 2)])
    ranges = ranges[np.argsort(ranges[:, 0])]
    within = pointers[inside(pointers, ranges)]
    lowest = ranges[:, 1].copy()
    np.minimum.at(lowest, holder(within, ranges), within)
    some = lowest < ranges[:, 1]
    low = ranges[some, 0]
    high = np.maximum(lowest[some] - np.uint64(RED_ZONE), low) & ~np.uint64(PAGE - 1)
    below = np.stack([low, high], axis=1)
    return len(within), below[low < high]


def returnable(
    taken: Marked, anon: U64, zeros: tuple[int, U64],
    waiting: tuple[int, U64] | None, trim: U64, locked: U64 | None = NONE,
) -> Returnable:
    """Return the bytes of what could be reclaimed; ``anon`` is what is anonymous and in RAM.

    ``waiting`` is what idle returns, ``locked`` what is locked in RAM, each None if that is not
    known; ``trim`` what the allocator would return.
    """
    kept = NONE if locked is None else locked
    (looked_at, empty), (threads, below) = zeros, waiting or (None, NONE)
    empty, below = without(empty, kept), without(below, kept)
    given = [part for part in (taken.lazyfree, taken.clean) if part is not None]
    inside_anon, _, _ = intersect(anon, union(np.concatenate([empty, below, trim])))
    every = union(np.concatenate([NONE, *given, inside_anon]))
    return Returnable(
        None if taken.lazyfree is None else total(taken.lazyfree),
        None if taken.clean is None else total(taken.clean),
        total(taken.huge), looked_at, bytes_within(empty, anon),
        threads, None if waiting is None else bytes_within(below, anon), total(every), taken.rss,
        None if locked is None else bytes_within(locked, anon),
    )


def locked_ranges(vmas: VMAs, locked: Bool | None) -> U64 | None:
    """Return the ranges of the VMAs that are ``locked``, None if that is not known."""
    return None if locked is None else vmas.ranges[locked]
