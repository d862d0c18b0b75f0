"""What a process's allocator holds: read while it runs, or copied while it is stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pagewalk.heap.arenas import NONE, Arena, memory_of, read_arena
from pagewalk.heap.buildinfo import built_by
from pagewalk.heap.cpython import Build, Pools, pools, python_build
from pagewalk.heap.glibc import ATTACHED, Malloc, find
from pagewalk.heap.golang import Found, Go, read_go
from pagewalk.heap.hotspot import Space, attachable, performance_data, spaces
from pagewalk.heap.jvm import Asked, ask_jvm
from pagewalk.heap.mapped import Parameters, mapped_chunks, parameters
from pagewalk.heap.memory import PAGE, Memory, TooLong, bytes_within, copied, in_time, live
from pagewalk.heap.others import loaded
from pagewalk.heap.returnable import (
    Marked,
    Returnable,
    idle,
    locked_ranges,
    marked,
    merged,
    returnable,
    total,
    zero_pages,
)
from pagewalk.heap.stacks import Stack, stacks
from pagewalk.heap.tcache import NEW, OLD, add_up
from pagewalk.model.columns import READ, SHARED, U64, WRITE, Backing, Bool, Pages, State, VMAs
from pagewalk.model.ranges import union, without
from pagewalk.proc.freeze import frozen
from pagewalk.proc.refusals import reading
from pagewalk.proc.stacks import read_stack_pointers
from pagewalk.proc.switches import read_switches
from pagewalk.proc.target import Target
from pagewalk.sources import Source
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.walk import Walk, walk

MACHINES = {"x86_64"}  # whose layout of glibc's structures is known
ATTEMPTS, AGAIN_NS = 3, 10**9
READABLE = (State.ANON, State.FILE, State.SHMEM, State.PRESENT)
# What is assumed where malloc's own are not recognised.
DEFAULTS = Parameters(0, 0, PAGE, 7)
HUGE = "arenas of huge pages (glibc.malloc.hugetlb=2) are laid out otherwise and are not read"
RAN = "the process ran while it was read"
TOO_LARGE = "copying its heap would have stopped the process for longer than {:.0f} ms"
SWAPPED = (State.SWAPPED, State.SOFT, State.MIGRATING)


class Part(NamedTuple):
    """What one arena holds, in bytes; ``None`` where its records contradicted one another.

    ``obtained`` from the system, ``in_use`` and ``free`` of it, as mallinfo2(3) counts them;
    ``trim``: free and in RAM in whole pages, what malloc_trim(0) would give back;
    ``thread_top``: so in the top of a thread arena, which it never gives back; ``scattered``: the
    rest of what is free and in RAM, in pages that also hold something in use. ``threads``: how many
    are attached to it.
    """

    main: bool
    threads: int
    obtained: int
    in_use: int | None
    free: int | None
    trim: int | None
    trim_exclusive: int | None
    thread_top: int | None
    scattered: int | None


class Stacks(NamedTuple):
    """The stacks of threads besides the main one: how many, their ``size``, and what was touched.

    ``kept`` are those of ended threads, which glibc keeps for others. Bytes in RAM.
    """

    live: int
    size: int
    touched: int
    kept: int
    kept_touched: int


class PoolBytes(NamedTuple):
    """CPython's pools: how many are ``used``, and bytes in RAM ``in_use`` by those and ``free``."""

    used: int
    in_use: int
    free: int


class Heap(NamedTuple):
    """What a process's allocator holds; see Part for the amounts, which are sums of ``arenas``.

    ``allocator`` is its name, None if none was recognised; if it is not glibc's the amounts are
    None. ``tcache`` bytes of what is in use are kept by threads for their next malloc, ``mmapped``
    bytes besides are in chunks that are mappings of their own. ``stacks``, ``pools`` and ``go`` are
    what else is known of the ``anonymous`` bytes in RAM; all together ``explained`` bytes of them.
    ``exact``: nothing changed while it was read, else ``why``. ``stopped_ns``: for how long the
    process was stopped.
    ``trimmed``: the ranges that malloc_trim(0) or debug.FreeOSMemory() would return, u64[k, 2].
    ``attachable``: whether a JVM says that it may be asked; ``asked``: what it then said.
    """

    walk: Walk[Pages]
    allocator: str | None
    library: str
    arenas: tuple[Part, ...]
    tcache: int | None
    mmapped: int | None
    explained: int
    anonymous: int
    exact: bool
    why: str
    stacks: Stacks
    pools: PoolBytes | None
    java: list[Space] | None = None
    python: Build | None = None
    go: Go | None = None
    stopped_ns: int = 0
    trimmed: U64 = NONE
    returnable: Returnable | None = None
    attachable: bool | None = None
    asked: Asked | None = None

    @property
    def outcome(self) -> Outcome:
        """Return what the walk found out besides."""
        return self.walk.outcome

    def total(self, name: str) -> int | None:
        """Return the sum of an amount of all arenas, None if one is not known."""
        amounts = [getattr(arena, name) for arena in self.arenas]
        return sum(amounts) if amounts and None not in amounts else None


class Taken(NamedTuple):
    # What is read of a process before its arenas are looked through.
    walk: Walk[Pages]
    marked: Marked
    memory: Memory
    malloc: Malloc | None
    arenas: list[U64 | None]
    parameters: Parameters | None
    mapped: U64
    go: Found


class Besides(NamedTuple):
    # What else is in a process's anonymous memory.
    stacks: list[Stack]
    python: Build | None
    pools: Pools | None
    java: dict[str, int | str]


def read_heap(source: Source) -> Heap:
    """Return what the allocator of a live process holds, read while it runs.

    Its memory is only read, and only what is in RAM. It is read again, up to three times within a
    second, until no thread of the process has run meanwhile. Raises NotPermitted, ProcessGone.
    """
    began = time.monotonic_ns()
    version = built_by(target_of(source))
    with memory_file(source) as fd:
        for _ in range(ATTEMPTS):
            before = read_switches(target_of(source))
            taken = take(source, fd, version)
            rest = besides(taken)
            heap = add_up_heap(taken, rest)
            still = before is not None and before == read_switches(target_of(source))
            if (still and heap.exact) or time.monotonic_ns() - began > AGAIN_NS:
                break
        if not still:
            heap = heap._replace(exact=False, why=heap.why or RAN)
        return with_returnable(heap, source, fd, taken, rest)


def read_stopped_heap(source: Source, longest_ns: int) -> Heap:
    """Return what the allocator of a process holds that is stopped until its heap is copied.

    A thread may be stopped in the middle of malloc: then it goes on, and is stopped again, up to
    three times. If that takes longer than ``longest_ns`` in all it is read while it runs; if there
    is time for the heap only, its stacks and pools are. Raises what read_heap and
    proc.freeze.frozen do.
    """
    stopped_ns, read = 0, None
    version = built_by(target_of(source))
    with memory_file(source) as fd:
        for _ in range(ATTEMPTS):
            taken, rest, took_ns = take_stopped(source, fd, version, longest_ns - stopped_ns)
            stopped_ns += took_ns
            if taken is None or rest is None:
                read = None
                break
            heap = add_up_heap(taken, rest)._replace(stopped_ns=stopped_ns)
            read = heap, source, fd, taken, rest
            if heap.exact:
                break
        if read:
            return with_returnable(*read)
    heap = read_heap(source)._replace(stopped_ns=stopped_ns)
    return heap if heap.exact else heap._replace(
        why=f"{TOO_LARGE.format(longest_ns / 1e6)}; {heap.why}"
    )


def with_asked(heap: Heap, source: Source) -> Heap:
    """Return ``heap`` with what the process says, if it is a JVM, which runs code to do so.

    Raises ProcessGone.
    """
    return heap._replace(asked=ask_jvm(target_of(source), heap.attachable))


def with_returnable(
    heap: Heap, source: Source, fd: int, taken: Taken, rest: Besides
) -> Heap:
    # Looked at last, page by page while the process runs: it takes too long to stop it for that.
    memory = taken.memory
    waiting = idle(rest.stacks, memory.vmas.ranges[main_stack(memory.vmas)],
                   read_stack_pointers(target_of(source)))
    zeros = zero_pages(fd, taken.marked.huge, taken.walk.facts.huge_size)
    return heap._replace(
        returnable=returnable(taken.marked, memory.anon, zeros, waiting, heap.trimmed))


def take_stopped(
    source: Source, fd: int, version: str | None, longest_ns: int
) -> tuple[Taken | None, Besides | None, int]:
    # What was taken of the stopped process, with a copy of its heap, None if that took too long;
    # and for how long it was stopped. Whether it stops in time counts too.
    taken = rest = None
    began = time.monotonic_ns()
    with frozen(target_of(source), longest_ns / 1e9) as ours, suppress(TooLong):
        found = take(source, fd, version, began + longest_ns)
        taken = copy_of(found)
        rest = besides(found)
    took_ns = time.monotonic_ns() - began if ours else 0
    if taken and rest is None:
        rest = besides(found._replace(memory=replace(found.memory, read=live(fd))))
    return taken, rest, took_ns


def copy_of(taken: Taken) -> Taken:
    # As read from a copy of its arenas.
    ranges = joined([NONE, *(part for part in taken.arenas if part is not None)])
    return taken._replace(memory=copied(taken.memory, ranges))


def target_of(source: Source) -> Target:
    assert source.live is not None
    return source.live.target


@contextmanager
def memory_file(source: Source) -> Iterator[int]:
    target = target_of(source)
    fd = target.open("mem")
    try:
        with reading(target.pid, "mem", target.dirfd):
            yield fd
    finally:
        os.close(fd)


def take(source: Source, fd: int, version: str | None, until_ns: int | None = None) -> Taken:
    walked, found_marked, memory = in_ram(source, fd, until_ns)
    known = walked.facts.architecture in MACHINES
    go = Found() if version is None or not known else read_go(memory, version)
    malloc = find(memory) if known else None
    arenas = memory_of(memory, malloc) if malloc else []
    found = parameters(memory, malloc) if malloc else None
    held = joined([go.ranges, *(part for part in arenas if part is not None)])
    mapped = mapped_chunks(memory, held, (found or DEFAULTS).chunks) if malloc else NONE
    return Taken(walked, found_marked, memory, malloc, arenas, found, mapped, go)


def besides(taken: Taken) -> Besides:
    memory = taken.memory
    held = [part for part in taken.arenas if part is not None]
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


def in_ram(source: Source, fd: int, until_ns: int | None) -> tuple[Walk[Pages], Marked, Memory]:
    """Return a walk of the process that is over, and what of its memory is in RAM."""
    readable, anon, exclusive, swapped = [NONE], [NONE], [NONE], [NONE]
    marks: list[Marked] = []
    with walk(source, Pages) as walked:
        dirty = walked.tells.tables and walked.tells.frames
        huge = walked.facts.huge_size
        for pages in walked:
            marks.append(marked(pages, walked.vmas, huge, dirty=dirty))
            ranges = np.stack([pages.addr, pages.addr + pages.size], axis=1)
            private = pages.state == State.ANON.value
            readable.append(union(ranges[np.isin(pages.state, READABLE)]))
            anon.append(union(ranges[private]))
            swapped.append(union(ranges[np.isin(pages.state, SWAPPED)]))
            if pages.mapcount is not None:
                exclusive.append(union(ranges[private & (pages.mapcount == 1)]))
            in_time(until_ns)
    told = walked.tells.frames
    locked = locked_ranges(walked.vmas, walked.outcome.locked)
    return walked, merged(marks, locked), Memory(walked.vmas, joined(readable), joined(anon),
                                                  joined(exclusive) if told else None,
                                                  joined(swapped), live(fd, until_ns))


def joined(parts: list[U64]) -> U64:
    return union(np.concatenate(parts))


def add_up_heap(taken: Taken, rest: Besides) -> Heap:
    memory, malloc = taken.memory, taken.malloc
    anon = memory.anon
    heap = Heap(
        taken.walk, None, "", (), None, None, 0, total(anon), exact=True, why="",
        stacks=add_up_stacks(memory, rest.stacks), go=taken.go.go,
        python=rest.python, java=spaces(rest.java), attachable=attachable(rest.java),
        trimmed=taken.go.free,
        pools=None if rest.pools is None else PoolBytes(
            len(rest.pools.used), bytes_within(rest.pools.used, anon),
            bytes_within(rest.pools.free, anon)),
    )
    main = memory.vmas.ranges[main_stack(memory.vmas)]
    known = [stack_ranges(rest.stacks), main, taken.go.ranges]
    known += [] if rest.pools is None else [rest.pools.used, rest.pools.free]
    if malloc is None:
        return without_glibc(taken, heap)._replace(explained=bytes_within(joined(known), anon))
    if taken.parameters and taken.parameters.huge:
        return heap._replace(allocator="glibc", library=malloc.library, exact=False, why=HUGE,
                             explained=bytes_within(joined(known), anon))
    parameters = taken.parameters or DEFAULTS
    arenas = [read_arena(memory, state, part, parameters, main=row == 0)
              for row, (state, part) in enumerate(zip(malloc.states, taken.arenas, strict=True))]
    known += [taken.mapped, *(arena.memory for arena in arenas)]
    rows = np.concatenate([arena.caches for arena in arenas])
    layout = OLD if len(malloc.states[0].fast) else NEW
    caches = add_up(memory, rows, layout, parameters.cached)
    why = doubts(memory, arenas, taken.parameters) or (heap.go.why if heap.go else "")
    return heap._replace(
        allocator="glibc", library=malloc.library, exact=not why, why=why,
        arenas=tuple(part(memory, arena) for arena in arenas),
        tcache=None if caches is None or taken.parameters is None else caches.bytes,
        mmapped=None if taken.parameters is None else taken.parameters.bytes,
        explained=bytes_within(joined(known), anon),
        trimmed=np.concatenate([taken.go.free, *(arena.trim for arena in arenas)]),
    )


def without_glibc(taken: Taken, heap: Heap) -> Heap:
    # Which allocator it is instead, and why it is not read.
    vmas, go = taken.memory.vmas, heap.go
    other = ", ".join(loaded(vmas)) or None
    why = f"{other} is not read" if other else "no allocator was recognised"
    if len(vmas) and vmas.end[-1] <= np.uint64(1 << 32):
        why = "32-bit programs are not read"
    elif taken.walk.facts.architecture not in MACHINES:
        why = f"on {taken.walk.facts.architecture} glibc's structures are not known"
    elif go and not other:
        other, why = "Go", go.why
    return heap._replace(allocator=other, exact=not why, why=why)


def add_up_stacks(memory: Memory, found: list[Stack]) -> Stacks:
    live_ones = [stack for stack in found if stack.tid]
    kept = [stack for stack in found if not stack.tid]
    return Stacks(
        len(live_ones), total(stack_ranges(live_ones)),
        bytes_within(stack_ranges(live_ones), memory.anon), len(kept),
        bytes_within(stack_ranges(kept), memory.anon),
    )


def stack_ranges(found: list[Stack]) -> U64:
    return np.array([stack[1:] for stack in found], np.uint64).reshape(-1, 2)


def main_stack(vmas: VMAs) -> Bool:
    return np.array([name == "[stack]" for name in vmas.name], bool)


def part(memory: Memory, arena: Arena) -> Part:
    threads, obtained = arena.state.field(ATTACHED), arena.obtained
    if not (arena.whole or arena.top[1]) or arena.free > obtained:
        return Part(arena.main, threads, obtained, *(None,) * 6)
    free, exclusive = arena.free, memory.exclusive
    trim = bytes_within(arena.trim, memory.anon)
    top = bytes_within(arena.kept, memory.anon)
    return Part(
        arena.main, threads, obtained, obtained - free, free, trim,
        None if exclusive is None else bytes_within(arena.trim, exclusive), top,
        bytes_within(arena.free_ranges, memory.anon) - trim - top,
    )


def doubts(memory: Memory, arenas: list[Arena], found: Parameters | None) -> str:
    """Return why the numbers may be wrong, empty if there is no reason to think so."""
    swapped = sum(bytes_within(arena.memory, memory.swapped) for arena in arenas)
    if swapped:
        return f"{swapped} bytes of the arenas are in swap, headers of chunks among them"
    torn = sum(not arena.whole for arena in arenas)
    if torn:
        return f"the records of {torn} of {len(arenas)} arenas contradict one another"
    return "" if found else "malloc's parameters were not recognised"
