"""Find what a process's allocator has in its memory, and look it through."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pagewalk.heap.arenas import layout_of, memory_of, scan_arena
from pagewalk.heap.buildinfo import built_by
from pagewalk.heap.chunks import MOST_CHUNKS
from pagewalk.heap.cpython import pools, python_build
from pagewalk.heap.glibc import find
from pagewalk.heap.golang import Found, read_go
from pagewalk.heap.heap import DEFAULTS, MACHINES, Besides, Taken
from pagewalk.heap.hotspot import performance_data
from pagewalk.heap.mapped import mapped_chunks, parameters
from pagewalk.heap.memory import NONE, PAGE, Memory, bytes_within, copied, in_time, live
from pagewalk.heap.others import linked, loaded
from pagewalk.heap.returnable import Marked, marked, merged
from pagewalk.heap.stacks import stacks
from pagewalk.heap.tcache import add_up
from pagewalk.model.columns import (
    READ,
    SHARED,
    U64,
    WRITE,
    Backing,
    Bool,
    Flag,
    Pages,
    State,
    VMAs,
    Withheld,
)
from pagewalk.model.ranges import union, without
from pagewalk.proc.refusals import reading
from pagewalk.proc.target import Target
from pagewalk.sources import Source
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.rows import Asked, paged

LARGEST_COPY = 256 << 20
EXCLUSIVE = "trim_exclusive, what of huge pages only this process holds"
# What can be read without a fault, and what is in swap, by state.
READABLE, SWAPPED = np.zeros(256, bool), np.zeros(256, bool)
READABLE[[State.ANON.value, State.FILE.value, State.SHMEM.value, State.PRESENT.value]] = True
SWAPPED[[State.SWAPPED.value, State.SOFT.value, State.MIGRATING.value]] = True


class Program(NamedTuple):
    """What a process's program tells: the version of ``go`` that built it, None for none, and the
    allocators ``linked`` into it.
    """

    go: str | None
    linked: list[str]


def look_at_program(target: Target) -> Program:
    """Return what the program of ``target`` tells; raises ProcessGone."""
    return Program(built_by(target), linked(target))


def target_of(source: Source) -> Target:
    """Return the live process of ``source``."""
    assert source.live is not None
    return source.live.target


@contextmanager
def memory_file(source: Source) -> Iterator[int]:
    """Open the process's memory in the block; raises NotPermitted, ProcessGone."""
    target = target_of(source)
    fd = target.open("mem")
    try:
        with reading(target.pid, "mem", target.dirfd):
            yield fd
    finally:
        os.close(fd)


def locate(
    source: Source, fd: int, program: Program, until_ns: int | None = None
) -> Taken:
    """Return where the allocator's memory is; raises TooLong after ``until_ns``."""
    memory, marks, outcome = in_ram(source, fd, until_ns)
    architecture = source.space.facts.architecture
    known = architecture in MACHINES
    go = Found() if program.go is None or not known else read_go(memory, program.go)
    others = tuple(dict.fromkeys([*loaded(memory.vmas), *program.linked]))
    taken = Taken(source.who, outcome, architecture, memory, marks, go, others=others)
    malloc = find(memory) if known else None
    if malloc is None:
        return taken
    ranges = memory_of(memory, malloc)
    found = parameters(memory, malloc)
    held = joined([go.ranges, *(part for part in ranges if part is not None)])
    mapped = mapped_chunks(memory, held, (found or DEFAULTS).chunks)
    return taken._replace(malloc=malloc, ranges=ranges, parameters=found, mapped=mapped)


def copied_or_scanned(taken: Taken) -> Taken:
    """Return it with a copy of the arenas, which takes half the time but memory, or looked through.
    """
    held = joined([NONE, *(part for part in taken.ranges if part is not None)])
    if bytes_within(held, taken.memory.readable) > LARGEST_COPY:
        return scanned(taken)
    return taken._replace(copy=copied(taken.memory, held))


def scanned(taken: Taken) -> Taken:
    """Return it with what looks like chunks in the arenas, looked through if they were not yet."""
    if taken.malloc is None or taken.arenas:
        return taken
    memory, known = taken.copy or taken.memory, taken.parameters or DEFAULTS
    arenas, most = [], MOST_CHUNKS
    for row, (state, part) in enumerate(zip(taken.malloc.states, taken.ranges, strict=True)):
        arenas.append(scan_arena(memory, state, part, known, most, main=row == 0))
        most -= len(arenas[-1].found.free.addr) + len(arenas[-1].found.small.addr)
    rows = np.concatenate([arena.found.caches for arena in arenas])
    caches = None
    if all(arena.found.whole for arena in arenas):
        caches = add_up(memory, rows, layout_of(taken.malloc.states[0]), known.cached)
    return taken._replace(arenas=tuple(arenas), caches=caches, copy=None)


def besides(taken: Taken, read: Callable[[memoryview, int], int]) -> Besides:
    """Return what else is known of its anonymous memory, by ``read``."""
    memory = replace(taken.memory, read=read)
    held = [part for part in taken.ranges if part is not None]
    rest = without(unnamed(memory.vmas), np.concatenate([taken.go.ranges, *held, taken.mapped]))
    python = python_build(memory)
    return Besides(stacks(memory, rest), python,
                   pools(memory, rest, python.pool) if python and python.pool else None,
                   performance_data(memory))


def unnamed(vmas: VMAs) -> U64:
    """Return the private anonymous VMAs that may be read and written and have no name."""
    mine = (vmas.backing == Backing.ANON.value) & np.array([not name for name in vmas.name], bool)
    ranges: U64 = vmas.ranges[mine & (vmas.perms & (READ | WRITE | SHARED) == READ | WRITE)]
    return ranges


def in_ram(
    source: Source, fd: int, until_ns: int | None
) -> tuple[Memory, Marked, Outcome]:
    """Return what of the process's memory is in RAM now, and why it is not known who shares it."""
    vmas, outcome, tells = source.vmas(), source.outcome(), source.space.tells
    marks: list[Marked] = []
    readable, anon, exclusive, swapped = [NONE], [NONE], [NONE], [NONE]
    told = True
    for pages in paged(Asked(source.space, vmas, vmas.ranges)):
        marks.append(marked(pages, vmas, source.space.facts.huge_size,
                            dirty=tells.tables and tells.frames))
        ranges = np.stack([pages.addr, pages.addr + pages.size], axis=1)
        private = pages.state == State.ANON.value
        readable.append(union(ranges[READABLE[pages.state]]))
        anon.append(union(ranges[private]))
        swapped.append(union(ranges[SWAPPED[pages.state]]))
        exclusive.append(union(ranges[private & alone(pages)]))
        told = told and tells_who(source, pages, private)
        in_time(until_ns)
    hidden = [] if told else [Withheld(EXCLUSIVE, why_hidden(outcome), partial=True)]
    memory = Memory(vmas, joined(readable), joined(anon), joined(exclusive) if told else None,
                    joined(swapped), live(fd, until_ns))
    return memory, merged(marks, NONE), Outcome(outcome.stall, hidden)


def joined(parts: list[U64]) -> U64:
    return union(np.concatenate(parts))


def alone(pages: Pages) -> Bool:
    # Which pages nobody else maps.
    if pages.mapcount is not None:
        mask: Bool = pages.mapcount == 1
    else:
        mask = pages.flags & np.uint32(Flag.EXCLUSIVE) != 0
    return mask


def tells_who(source: Source, pages: Pages, private: Bool) -> bool:
    # Bit 56 of pagemap tells that to everybody, but of a huge page only whether its first page is
    # mapped once.
    if pages.mapcount is not None:
        return True
    return not source.space.tells.tables and bool((pages.size[private] == PAGE).all())


def why_hidden(outcome: Outcome) -> str:
    whys = [row.why for row in outcome.withheld if "mapcount" in row.what]
    return whys[0] if whys else "the counts of page frames cannot be read"
