"""Measure how long a read may have held a lock of the target, and keep that within a budget.

Long reads tell how far they are, if somebody wants to hear it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

# Called with what is being done, how many bytes of it are done, and of how many, None if that is
# not known. None: nobody listens.
Hear = Callable[[str, int, int | None], None]
HEAR: ContextVar[Hear | None] = ContextVar("HEAR", default=None)
BUDGET_NS = 5_000_000
MOST_TEXT, LEAST_TEXT = 1 << 12, 1 << 7  # a line of maps has at least 50 bytes


@dataclass(eq=False)
class Stall:
    """Timer of reads that take the target's mmap_lock; the longest bounds how long it waited.

    ``budget_ns`` is how long a single read may take, ``longest_ns`` the longest so far and
    ``where`` the file it read. The whole read is timed, so the lock was held for less.
    """

    budget_ns: int = BUDGET_NS
    longest_ns: int = 0
    where: str = ""
    reads: int = 0
    last_ns: int = field(default=0, repr=False)

    @contextmanager
    def timed(self, where: str) -> Iterator[None]:
        """Time one read of the file ``where``."""
        started = time.perf_counter_ns()
        try:
            yield
        finally:
            self.note(time.perf_counter_ns() - started, where)

    def note(self, took_ns: int, where: str) -> None:
        """Record a read of ``where`` that took ``took_ns``."""
        self.reads += 1
        self.last_ns = took_ns
        if took_ns > self.longest_ns:
            self.longest_ns = took_ns
            self.where = where


@dataclass(eq=False)
class Slice:
    """How much to ask for in one read, adapted so that reads stay well within the budget.

    It aims at 1/``share`` of the budget: on a busy machine a read also waits for the lock and is
    descheduled, and that time cannot be told apart from the time under the lock.
    """

    size: int
    least: int
    most: int
    share: int = 10

    def adapt(self, stall: Stall) -> None:
        """Grow or shrink according to the read that ``stall`` timed last."""
        if stall.last_ns > stall.budget_ns // self.share:
            self.size = max(self.size // 2, self.least)
        elif stall.last_ns < stall.budget_ns // self.share * 2 // 5:
            self.size = min(self.size * 2, self.most)


def read_slices(fd: int, stall: Stall, where: str) -> bytes:
    """Return everything behind ``fd``, a text file of /proc, from offset 0; each read is timed.

    One read prints as many VMAs as fit in its buffer, 4 KiB at most (seq_read_iter, fs/seq_file.c),
    and holds the target's lock for all of them. So a shorter read holds it for fewer VMAs, down to
    one whose text fills the buffer.
    """
    chunk = Slice(MOST_TEXT, LEAST_TEXT, MOST_TEXT)
    os.lseek(fd, 0, os.SEEK_SET)
    parts: list[bytes] = []
    part, hear = b"more", HEAR.get()
    while part:  # 5000 passes for 30 000 VMAs: timed() would add a fifth
        began = time.perf_counter_ns()
        part = os.read(fd, chunk.size)
        stall.note(time.perf_counter_ns() - began, where)
        chunk.adapt(stall)
        parts.append(part)
        if hear:
            hear(f"reading {where}", 0, None)
    return b"".join(parts)
