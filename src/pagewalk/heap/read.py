"""Read what an allocator holds: from a process that runs, or while it is stopped for that."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from pagewalk.heap.arenas import NONE, layout_of, memory_of, scan_arena
from pagewalk.heap.buildinfo import built_by
from pagewalk.heap.chunks import MOST_CHUNKS
from pagewalk.heap.cpython import pools, python_build
from pagewalk.heap.glibc import find
from pagewalk.heap.golang import Found, read_go
from pagewalk.heap.heap import DEFAULTS, MACHINES, Besides, Heap, Taken, add_up_heap, main_stack
from pagewalk.heap.hotspot import performance_data
from pagewalk.heap.jvm import ask_jvm
from pagewalk.heap.mapped import mapped_chunks, parameters
from pagewalk.heap.memory import PAGE, Memory, TooLong, bytes_within, copied, in_time, live
from pagewalk.heap.returnable import (
    Marked,
    idle,
    locked_ranges,
    marked,
    merged,
    returnable,
    zero_pages,
)
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
from pagewalk.model.errors import NotStopped
from pagewalk.model.ranges import union, without
from pagewalk.proc.freeze import frozen_for
from pagewalk.proc.refusals import reading
from pagewalk.proc.sharers import numbers_in_proc, sharers
from pagewalk.proc.stacks import read_stack_pointers
from pagewalk.proc.switches import cpu_time, read_switches
from pagewalk.proc.target import Target
from pagewalk.sources import Source
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.at_end import find_locked, withholding
from pagewalk.walking.rows import Asked, paged

ATTEMPTS, AGAIN_NS = 3, 10**9
LARGEST_COPY = 256 << 20
# What can be read without a fault, and what is in swap, by state.
READABLE, SWAPPED = np.zeros(256, bool), np.zeros(256, bool)
READABLE[[State.ANON.value, State.FILE.value, State.SHMEM.value, State.PRESENT.value]] = True
SWAPPED[[State.SWAPPED.value, State.SOFT.value, State.MIGRATING.value]] = True
RAN = "the process ran while it was read"
OTHERS = "process {} has the same memory (vfork, or clone with CLONE_VM) and may have run meanwhile"
TOO_LONG = ("reading its heap takes longer than the {:.0f} ms for which it may be stopped: while it"
            " ran that took {:.0f} ms of CPU time; give --longest-stop more than that")


class Reading(NamedTuple):
    # What was read of a process, added up; how much CPU time the allocator's part took, and which
    # other processes have the same memory.
    heap: Heap
    taken: Taken
    rest: Besides
    took_ns: int = 0
    others: Sequence[int] = ()

    def but(self, others: list[int], *, ran: bool) -> Reading:
        # The same as an estimate, if it or `others` in its memory may have run meanwhile.
        heap = self.heap
        if others:
            heap = heap._replace(exact=False, why=heap.why or OTHERS.format(others[0]),
                                 stop_helps=False)
        elif ran:
            heap = heap._replace(exact=False, why=heap.why or RAN,
                                 stop_helps=heap.exact or heap.stop_helps)
        return self._replace(heap=heap, others=others)


def read_heap(source: Source) -> Heap:
    """Return what the allocator of a live process holds, read while it runs.

    Its memory is only read, and only what is in RAM. It is read again, up to three times within a
    second, until no thread of the process has run meanwhile. Raises NotPermitted, ProcessGone.
    """
    began = time.monotonic_ns()
    version = built_by(target_of(source))
    with memory_file(source) as fd:
        for _ in range(ATTEMPTS):
            found = read_running(source, fd, version)
            if found.heap.exact or time.monotonic_ns() - began > AGAIN_NS:
                break
        return with_returnable(found, source, fd)


def read_stopped_heap(source: Source, longest_ns: int) -> Heap:
    """Return what the allocator of a process holds that is stopped only while that is read.

    It is first read while it runs: if it was at rest that is exact, and if that takes more than
    twice ``longest_ns`` of CPU time it is not stopped in vain. A thread may be stopped in the
    middle of malloc: then it goes on, and is stopped again, up to three times, for ``longest_ns``
    in all. Raises what read_heap and proc.freeze.frozen do.
    """
    stopped_ns, last = 0, None
    version = built_by(target_of(source))
    with memory_file(source) as fd:
        for _ in range(ATTEMPTS):
            found = read_running(source, fd, version)
            if not found.others:
                break
        why = TOO_LONG.format(longest_ns / 1e6, found.took_ns / 1e6)
        useful = found.heap.stop_helps and not found.heap.exact
        for _ in range(ATTEMPTS if useful and found.took_ns <= 2 * longest_ns else 0):
            began = time.monotonic_ns()
            try:
                last, ns = read_once_stopped(source, fd, version, max(longest_ns - stopped_ns, 0))
            except NotStopped as err:
                last, ns, why = None, time.monotonic_ns() - began, str(err)
            stopped_ns += ns
            if last is None or last.heap.exact:
                break
        heap = with_returnable(last or found, source, fd)
    if useful and last is None:
        heap = heap._replace(why=f"{heap.why}; {why}")
    return heap._replace(stopped_ns=stopped_ns)


def with_asked(heap: Heap, source: Source) -> Heap:
    """Return ``heap`` with what the process says, if it is a JVM, which runs code to do so.

    Raises ProcessGone.
    """
    asked, ranges = ask_jvm(target_of(source), heap.attachable, heap.anon)
    return heap.explaining(ranges)._replace(asked=asked)


def read_running(source: Source, fd: int, version: str | None) -> Reading:
    target = target_of(source)
    before, others = read_switches(target), sharers(target)
    began = time.process_time_ns()
    taken = scanned(locate(source, fd, version))
    took_ns = time.process_time_ns() - began
    rest = besides(taken, live(fd))
    ran = before is None or before != read_switches(target)
    return Reading(add_up_heap(taken, rest), taken, rest, took_ns).but(others, ran=ran)


def read_once_stopped(
    source: Source, fd: int, version: str | None, longest_ns: int
) -> tuple[Reading | None, int]:
    # None if it took too long; and for how long the process was stopped. What was read counts only
    # if there was still time afterwards: then nobody had resumed it.
    target = target_of(source)
    taken = rest = None
    ran = False
    known, others = numbers_in_proc(), sharers(target)
    with frozen_for(target, longest_ns) as stop, suppress(TooLong):
        until_ns = stop.until_ns or time.monotonic_ns() + longest_ns
        before = cpu_time(target)
        found = copied_or_scanned(locate(source, fd, version, until_ns))
        ran = before != cpu_time(target)
        others += sharers(target, known)
        in_time(until_ns)
        taken = found
        beside = besides(found, live(fd, until_ns))
        in_time(until_ns)
        rest = beside
    if taken is None:
        return None, stop.ns
    later, taken = rest is None, scanned(taken)
    rest = rest or besides(taken, live(fd))
    read = Reading(add_up_heap(taken, rest)._replace(rest_later=later), taken, rest)
    return read.but(others, ran=ran), stop.ns


def with_returnable(found: Reading, source: Source, fd: int) -> Heap:
    # Looked at last, page by page while the process runs: it takes too long to stop it for that.
    memory, marks = found.taken.memory, found.taken.marked
    assert source.live is not None
    outcome, locked = source.outcome(), None
    with withholding(outcome, "locked"):
        locked = find_locked(source.live, memory.vmas, outcome, cache(source.live.status))
    marks = merged([marks], locked_ranges(memory.vmas, locked))
    waiting = idle(found.rest.stacks, memory.vmas.ranges[main_stack(memory.vmas)],
                   read_stack_pointers(target_of(source)))
    zeros = zero_pages(fd, marks.huge, source.space.facts.huge_size)
    return found.heap._replace(
        returnable=returnable(marks, memory.anon, zeros, waiting, found.heap.trimmed))


def copied_or_scanned(taken: Taken) -> Taken:
    # A copy takes half the time, but memory.
    held = joined([NONE, *(part for part in taken.ranges if part is not None)])
    if bytes_within(held, taken.memory.readable) > LARGEST_COPY:
        return scanned(taken)
    return taken._replace(copy=copied(taken.memory, held))


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


def locate(
    source: Source, fd: int, version: str | None, until_ns: int | None = None
) -> Taken:
    """Return where the allocator's memory is; raises TooLong after ``until_ns``.

    ``version`` is that of Go which built the program.
    """
    memory, marks, outcome = in_ram(source, fd, until_ns)
    architecture = source.space.facts.architecture
    known = architecture in MACHINES
    go = Found() if version is None or not known else read_go(memory, version)
    taken = Taken(source.who, outcome, architecture, memory, marks, go)
    malloc = find(memory) if known else None
    if malloc is None:
        return taken
    ranges = memory_of(memory, malloc)
    found = parameters(memory, malloc)
    held = joined([go.ranges, *(part for part in ranges if part is not None)])
    mapped = mapped_chunks(memory, held, (found or DEFAULTS).chunks)
    return taken._replace(malloc=malloc, ranges=ranges, parameters=found, mapped=mapped)


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
    for pages in paged(Asked(source.space, vmas, vmas.ranges), outcome):
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
    hidden = [] if told else [Withheld("trim_exclusive", why_hidden(outcome), partial=True)]
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
