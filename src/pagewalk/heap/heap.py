"""What a process's allocator holds, added up from what was read of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pagewalk.heap.arenas import Arena, Scanned, judged
from pagewalk.heap.chunks import MOST_CHUNKS
from pagewalk.heap.cpython import Build, Pools
from pagewalk.heap.glibc import ATTACHED, Malloc, of_files
from pagewalk.heap.golang import TORN, Found, Go
from pagewalk.heap.hotspot import Space, attachable, spaces
from pagewalk.heap.jvm import Asked
from pagewalk.heap.mapped import Parameters
from pagewalk.heap.memory import NONE, PAGE, Memory, bytes_within, total
from pagewalk.heap.returnable import Marked, Returnable
from pagewalk.heap.stacks import Stack
from pagewalk.heap.tcache import Caches
from pagewalk.model.columns import U64, Bool, VMAs
from pagewalk.model.ranges import union
from pagewalk.sources.outcome import Outcome, Who

MACHINES = {"x86_64"}  # whose layout of glibc's structures is known
# What is assumed where malloc's own are not recognised.
DEFAULTS = Parameters(0, 0, PAGE, 7)
LOCKED = "what is locked in RAM is not known, and malloc_trim gives none of that back"
HUGE = "arenas of huge pages (glibc.malloc.hugetlb=2) are laid out otherwise and are not read"


class Part(NamedTuple):
    """What one arena holds, in bytes; ``None`` where its records contradicted one another.

    ``obtained`` from the system, ``in_use`` and ``free`` of it, as mallinfo2(3) counts them;
    ``trim``: free and in RAM in whole pages, what malloc_trim(0) would give back;
    ``thread_top``: so in the top of a thread arena, which it never gives back; ``locked``: so, but
    locked in RAM (mlock), which it cannot give back; ``scattered``: the rest of what is free and in
    RAM, in pages that also hold something in use. ``threads``: how many are attached to it.
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
    locked: int | None


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
    """CPython's pools: how many are ``used``, and bytes in RAM ``in_use`` by those and ``free``.

    ``blocks`` are the bytes that the program uses of those in use.
    """

    used: int
    in_use: int
    free: int
    blocks: int


class Heap(NamedTuple):
    """What a process's allocator holds; see Part for the amounts, which are sums of ``arenas``.

    ``allocator`` is its name, None if none was recognised; if it is not glibc's the amounts are
    None. ``tcache`` bytes of what is in use are kept by threads for their next malloc, ``mmapped``
    bytes besides are in chunks that are mappings of their own. ``stacks``, ``pools`` and ``go`` are
    what else is known of the ``anonymous`` bytes in RAM, and ``written``, pages of files that the
    process has a copy of since it wrote to them; all together ``explained`` bytes of them.
    ``exact``: nothing changed while it was read, else ``why``. ``stopped_ns``: for how long the
    process was stopped, and ``rest_later``: stacks, pools and the Java heap were read after that.
    ``stop_helps``: what was wrong is that it ran, and it was not tried to stop it. ``others``: the
    allocators that it has besides, which are not read.
    ``trimmed``: the ranges that malloc_trim(0) or debug.FreeOSMemory() would return, u64[k, 2].
    ``anon`` and ``known``: the ranges of which ``anonymous`` and ``explained`` are the bytes, the
    latter in RAM or not. ``attachable``: whether a JVM says that it may be asked; ``asked``: what
    it then said.
    """

    who: Who
    outcome: Outcome
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
    rest_later: bool = False
    stop_helps: bool = False
    others: tuple[str, ...] = ()
    trimmed: U64 = NONE
    returnable: Returnable | None = None
    anon: U64 = NONE
    known: U64 = NONE
    attachable: bool | None = None
    asked: Asked | None = None
    written: int = 0

    def explaining(self, *ranges: U64) -> Heap:
        """Return it with ``ranges``, u64[k, 2] each, explained besides."""
        known = union(np.concatenate([self.known, *ranges]))
        return self._replace(known=known, explained=bytes_within(known, self.anon))

    def total(self, name: str) -> int | None:
        """Return the sum of an amount of all arenas, None if one is not known."""
        amounts = [getattr(arena, name) for arena in self.arenas]
        return sum(amounts) if amounts and None not in amounts else None


class Taken(NamedTuple):
    """What was read of a process: where its allocator is, and what is there.

    ``memory`` tells what is in RAM, ``marked`` what is special of it; ``malloc`` is None where
    there is none, or none that is known.
    ``ranges`` (u64[k, 2]) are those of each arena, None if its heaps are torn, ``mapped`` (the
    same) chunks that are mappings of their own. Then ``arenas`` are looked through, in a ``copy``
    of them if there is one, and the ``caches`` of threads found there. ``others``: allocators that
    are not read. ``locked`` u64[k, 2]: what is locked in RAM, None if that is not known.
    """

    who: Who
    outcome: Outcome
    architecture: str
    memory: Memory
    marked: Marked
    go: Found = Found()
    malloc: Malloc | None = None
    ranges: Sequence[U64 | None] = ()
    parameters: Parameters | None = None
    mapped: U64 = NONE
    others: tuple[str, ...] = ()
    copy: Memory | None = None
    arenas: tuple[Scanned, ...] = ()
    caches: Caches | None = None
    locked: U64 | None = NONE


class Besides(NamedTuple):
    """What else was read of its anonymous memory."""

    stacks: list[Stack]
    python: Build | None
    pools: Pools | None
    java: dict[str, int | str]


def add_up_heap(taken: Taken, rest: Besides) -> Heap:
    """Return what was read of a process, added up."""
    memory, malloc, go = taken.memory, taken.malloc, taken.go
    files = memory.vmas.ranges[of_files(memory.vmas)]
    heap = Heap(
        taken.who, taken.outcome, None, "", (), None, None, 0, total(memory.anon), exact=True,
        why="", others=taken.others, stacks=add_up_stacks(memory, rest.stacks), go=go.go,
        python=rest.python, java=spaces(rest.java), attachable=attachable(rest.java),
        pools=None if rest.pools is None else pool_bytes(memory, rest.pools), trimmed=go.free,
        anon=memory.anon, written=bytes_within(files, memory.anon),
    )
    pools = [] if rest.pools is None else [rest.pools.used, rest.pools.free]
    heap = heap.explaining(stack_ranges(rest.stacks), memory.vmas.ranges[main_stack(memory.vmas)],
                           go.ranges, files, *pools)
    if malloc is None:
        return without_glibc(taken, heap)
    if taken.parameters and taken.parameters.huge:
        return heap._replace(allocator="glibc", library=malloc.library, exact=False, why=HUGE)
    held = [part for part in taken.ranges if part is not None]
    arenas = add_up_arenas(taken)
    why, restless = doubts(taken, arenas.torn)
    if not why and go.go:
        why, restless = go.go.why, go.go.why == TORN
    return heap.explaining(taken.mapped, *held)._replace(
        allocator="glibc", library=malloc.library, exact=not why, why=why, arenas=arenas.parts,
        stop_helps=restless,
        tcache=None if taken.caches is None or taken.parameters is None else taken.caches.bytes,
        mmapped=None if taken.parameters is None else taken.parameters.bytes,
        trimmed=np.concatenate([go.free, *arenas.trim]),
    )


def without_glibc(taken: Taken, heap: Heap) -> Heap:
    # Which allocator it is instead, and why it is not read.
    vmas, go = taken.memory.vmas, heap.go
    other = ", ".join(taken.others) or None
    why = f"{other} is not read" if other else "no allocator was recognised"
    if len(vmas) and vmas.end[-1] <= np.uint64(1 << 32):
        why = "32-bit programs are not read"
    elif taken.architecture not in MACHINES:
        why = f"on {taken.architecture} glibc's structures are not known"
    elif go and not other:
        other, why = "Go", go.why
    return heap._replace(allocator=other, exact=not why, why=why, stop_helps=why == TORN)


class Arenas(NamedTuple):
    # What all arenas hold, the ranges of each that would be trimmed, and how many contradict
    # themselves.
    parts: tuple[Part, ...]
    trim: list[U64]
    torn: int


def add_up_arenas(taken: Taken) -> Arenas:
    # One after the other: each needs memory for its chunks.
    parts, trim, torn = [], [], 0
    for scanned in taken.arenas:
        locked = NONE if taken.locked is None else taken.locked
        arena = judged(scanned, taken.parameters or DEFAULTS, locked)
        parts.append(part(taken.memory, arena))
        trim.append(arena.trim)
        torn += not arena.whole
    return Arenas(tuple(parts), trim, torn)


def pool_bytes(memory: Memory, found: Pools) -> PoolBytes:
    return PoolBytes(len(found.used), bytes_within(found.used, memory.anon),
                     bytes_within(found.free, memory.anon), found.blocks)


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
        return Part(arena.main, threads, obtained, *(None,) * 7)
    free, exclusive = arena.free, memory.exclusive
    trim = bytes_within(arena.trim, memory.anon)
    top, locked = (bytes_within(part, memory.anon) for part in (arena.kept, arena.locked))
    return Part(
        arena.main, threads, obtained, obtained - free, free, trim,
        None if exclusive is None else bytes_within(arena.trim, exclusive), top,
        bytes_within(arena.free_ranges, memory.anon) - trim - top - locked, locked,
    )


def doubts(taken: Taken, torn: int) -> tuple[str, bool]:
    """Return why the numbers may be wrong, empty if there is no reason to think so.

    And whether that is because it ran: then it does not outlast a stop.
    """
    memory, arenas = taken.memory, taken.arenas
    swapped = sum(bytes_within(arena.memory, memory.swapped)
                  for arena in arenas if arena.memory is not None)
    if swapped:
        return f"{swapped} bytes of the arenas are in swap, headers of chunks among them", False
    if not all(arena.found.whole for arena in arenas):
        many = f"it has more than {MOST_CHUNKS} free chunks"
        return f"{many}: looking at them takes over a gigabyte", False
    if torn:
        return f"the records of {torn} of {len(arenas)} arenas contradict one another", True
    if taken.locked is None:
        return LOCKED, False
    return "" if taken.parameters else "malloc's parameters were not recognised", False
