"""Read what an allocator holds: from a process that runs, or while it is stopped for that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from pagewalk.heap.heap import Besides, Heap, Taken, add_up_heap, main_stack
from pagewalk.heap.jvm import ask_jvm
from pagewalk.heap.locate import (
    Program,
    besides,
    copied_or_scanned,
    locate,
    look_at_program,
    memory_file,
    scanned,
    target_of,
)
from pagewalk.heap.memory import TooLong, in_time, live
from pagewalk.heap.returnable import idle, locked_ranges, merged, returnable, zero_pages
from pagewalk.model.errors import NotStopped
from pagewalk.proc.freeze import frozen_for
from pagewalk.proc.sharers import Sharer, numbers_in_proc, sharers
from pagewalk.proc.stacks import read_stack_pointers
from pagewalk.proc.switches import cpu_time, read_switches
from pagewalk.sources import Source
from pagewalk.walking.at_end import find_locked, withholding

ATTEMPTS, AGAIN_NS = 3, 10**9
RAN = "the process ran while it was read"
OTHERS = "process {} has the same memory (vfork, or clone with CLONE_VM) and may have run meanwhile"
LIKE = ("process {} may have the same memory (its statm is the same, and it cannot be compared) and"
        " may have run meanwhile")
TOO_LONG = ("reading its heap takes longer than the {:.0f} ms for which it may be stopped: while it"
            " ran that took {:.0f} ms of CPU time; give --longest-stop more than that")


class Reading(NamedTuple):
    # What was read of a process, added up; how much CPU time the allocator's part took, and which
    # other processes have the same memory.
    heap: Heap
    taken: Taken
    rest: Besides
    took_ns: int = 0
    others: Sequence[Sharer] = ()

    def but(self, others: list[Sharer], *, ran: bool) -> Reading:
        # The same as an estimate, if it or `others` in its memory may have run meanwhile.
        heap = self.heap
        if others:
            first = max(others, key=lambda one: one.certain)
            why = (OTHERS if first.certain else LIKE).format(first.pid)
            heap = heap._replace(exact=False, why=heap.why or why, stop_helps=False)
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
    program = look_at_program(target_of(source))
    with memory_file(source) as fd:
        for _ in range(ATTEMPTS):
            found = read_running(source, fd, program)
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
    program = look_at_program(target_of(source))
    with memory_file(source) as fd:
        for _ in range(ATTEMPTS):
            found = read_running(source, fd, program)
            if not found.others:
                break
        why = TOO_LONG.format(longest_ns / 1e6, found.took_ns / 1e6)
        useful = found.heap.stop_helps and not found.heap.exact
        for _ in range(ATTEMPTS if useful and found.took_ns <= 2 * longest_ns else 0):
            began = time.monotonic_ns()
            try:
                last, ns = read_once_stopped(source, fd, program, max(longest_ns - stopped_ns, 0))
            except NotStopped as err:
                last, ns, why = None, time.monotonic_ns() - began, str(err)
            stopped_ns += ns
            if last is None or last.heap.exact:
                break
        heap = with_returnable(last or found, source, fd)
    if useful and last is None:
        heap = heap._replace(why=f"{heap.why}; {why}")
    return heap._replace(stopped_ns=stopped_ns, stop_helps=False)  # that was tried


def with_asked(heap: Heap, source: Source) -> Heap:
    """Return ``heap`` with what the process says, if it is a JVM, which runs code to do so.

    Raises ProcessGone.
    """
    asked, ranges = ask_jvm(target_of(source), heap.attachable, heap.anon)
    return heap.explaining(ranges)._replace(asked=asked)


def read_running(source: Source, fd: int, program: Program) -> Reading:
    target = target_of(source)
    before, others = read_switches(target), sharers(target)
    began = time.process_time_ns()
    taken = with_locked(scanned(locate(source, fd, program)), source)
    took_ns = time.process_time_ns() - began
    rest = besides(taken, live(fd))
    ran = before is None or before != read_switches(target)
    return Reading(add_up_heap(taken, rest), taken, rest, took_ns).but(others, ran=ran)


def read_once_stopped(
    source: Source, fd: int, program: Program, longest_ns: int
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
        found = copied_or_scanned(locate(source, fd, program, until_ns))
        ran = before != cpu_time(target)
        others += sharers(target, known)
        in_time(until_ns)
        taken = found
        beside = besides(found, live(fd, until_ns))
        in_time(until_ns)
        rest = beside if before == cpu_time(target) else None
    if taken is None:
        return None, stop.ns
    later, taken = rest is None, with_locked(scanned(taken), source)
    rest = rest or besides(taken, live(fd))
    read = Reading(add_up_heap(taken, rest)._replace(rest_later=later), taken, rest)
    return read.but(others, ran=ran), stop.ns


def with_locked(taken: Taken, source: Source) -> Taken:
    # With what is locked in RAM; None where only smaps tells that and reading it takes too long.
    assert source.live is not None
    outcome, locked = source.outcome(), None
    with withholding(outcome, "locked"):
        locked = find_locked(source.live, taken.memory.vmas, outcome, cache(source.live.status))
    return taken._replace(locked=locked_ranges(taken.memory.vmas, locked))


def with_returnable(found: Reading, source: Source, fd: int) -> Heap:
    # Looked at last, page by page while the process runs: it takes too long to stop it for that.
    memory, locked = found.taken.memory, found.taken.locked
    marks = merged([found.taken.marked], locked)
    # A child by vfork(2) runs on the stack of the thread that waits for it, below where that waits.
    waiting = None if found.others else idle(
        found.rest.stacks, memory.vmas.ranges[main_stack(memory.vmas)],
        read_stack_pointers(target_of(source)))
    zeros = zero_pages(fd, marks.huge, source.space.facts.huge_size)
    return found.heap._replace(
        returnable=returnable(marks, memory.anon, zeros, waiting, found.heap.trimmed, locked))
