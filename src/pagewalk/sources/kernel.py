"""A process read from kernel memory: its VMAs and its real page tables, without any lock.

Shared by all sources that read kernel memory, whatever the reader (eBPF, /proc/kcore).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import read_words
from pagewalk.kernel.running import RunningKernel, as_it_is_now
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import Task, pid_behind, task_of
from pagewalk.kernel.structs.vmas import (
    RawVmas,
    forked,
    read_each,
    read_edges,
    read_vmas,
    still_maps,
)
from pagewalk.model.columns import I64, U64, Bool, VMAs, Withheld
from pagewalk.model.errors import NoAddressSpace, PagewalkError, ProcessGone, SourceUnavailable
from pagewalk.model.ranges import differing
from pagewalk.proc.kernel import read_facts
from pagewalk.proc.maps import internal_filesystems, parse_mountinfo
from pagewalk.proc.pagemap import Pagemap
from pagewalk.proc.stall import Stall
from pagewalk.proc.swap import Evicted
from pagewalk.proc.target import Target
from pagewalk.sources.outcome import Outcome
from pagewalk.sources.process import LiveSource
from pagewalk.sources.tables import TableSpace
from pagewalk.sources.vma_names import agreeing, flags_of, with_flags

if TYPE_CHECKING:
    from pagewalk.kernel.structs.holders import Holder

SHMEM_CHANGED = "a mapping of shared memory changed after the walk; --freeze prevents that"
NOWHERE = np.zeros((0, 2), np.uint64)
VMA_TRIES = 2


class Known(NamedTuple):
    """The VMAs as they are while the mm's ``sequence`` does not change: from maps, from the maple
    tree, and both combined."""

    sequence: int
    named: VMAs
    raw: RawVmas
    vmas: VMAs


@dataclass(eq=False)
class KernelSource(LiveSource):
    """A process whose page tables are read from kernel memory; see sources.Source, sources.Live.

    ``mm`` is the address of its mm_struct when it was opened. ``task`` is the thread that the
    target's directory belongs to, and ``struct_pid`` the address of its struct pid, which the open
    directory keeps alive. ``proof`` u64[2] is the addresses of the task's start time and mm, and of
    the mm's sequence if the kernel has one. ``pagemap`` is used for hugetlb only and is None if
    refused. ``known`` is the VMAs as last read, ``restless`` notes what could not be read of them,
    and ``told`` is what vmas() returned last, with its sources; ``unmoved`` are VMAs that changed()
    found unchanged by the mm's sequence alone.
    """

    space: TableSpace
    running: RunningKernel
    struct_pid: int
    task: Task
    proof: U64
    mm: int
    pagemap: Pagemap | None
    known: Known | None = None
    restless: Withheld | None = None
    told: tuple[VMAs, RawVmas] | None = None
    unmoved: VMAs | None = None

    def __post_init__(self) -> None:
        self.space.exclusive, self.space.unshared = self.exclusive, self.unshared

    @property
    def page_tables(self) -> TableSpace:
        """Return the address space: it is read from page tables."""
        return self.space

    def outcome(self) -> Outcome:
        """Return what this source cannot know about this process."""
        restless = () if self.restless is None else (self.restless,)
        return Outcome(self.stall, [*self.running.notes, *self.notes, *restless])

    def vmas(self) -> VMAs:
        """Return the VMAs of the maple tree, with names from maps if we may read it.

        If the process keeps mapping and unmapping, each VMA is as it was at some moment, and
        ``withheld`` says what could not be read even so. Raises ProcessGone when the task has ended
        or has another mm.
        """
        sequence = self.check_alive()
        for _ in range(VMA_TRIES):
            named = self.read_maps()
            if self.known and self.known.sequence == sequence and self.known.named is named:
                return self.known.vmas
            raw, lost, at_once = self.read_raw()
            # VMAs of different moments will not match maps the next time either.
            if named is None or not at_once or self.agree(named, raw):
                break
        self.restless = None
        if named is not None and not len(lost) and self.agree(named, raw):
            vmas = with_flags(named, flags_of(named, raw))
        else:
            from pagewalk.sources.pieces import piece_together

            vmas, self.restless = piece_together(
                self.running.kernel, named, raw, lost, self.filesystems, self.running.arch.user_end
            )
        self.told = vmas, raw
        if self.check_alive() == sequence and sequence is not None and named is not None:
            self.known = Known(sequence, named, raw, vmas)
        return vmas

    def agree(self, named: VMAs, raw: RawVmas) -> bool:
        # Whether maps and the maple tree have the same VMAs; maps also has the gate VMA.
        gate = int((named.start >= np.uint64(self.running.arch.user_end)).sum())
        return int(agreeing(named, raw).sum()) == len(raw.start) == len(named) - gate

    def read_raw(self) -> tuple[RawVmas, U64, bool]:
        # The VMAs, where none could be read (u64[n, 2]), and whether all are of one moment.
        kernel = self.running.kernel
        with suppress(SourceUnavailable):
            return read_vmas(kernel, self.mm), NOWHERE, True
        self.check_alive()  # while an mm is torn down its VMAs change, too
        return *read_each(kernel, self.mm), False

    def changed(self, vmas: VMAs) -> int:
        """Return how many of ``vmas`` have changed; raises ProcessGone like vmas()."""
        sequence = self.check_alive()
        still = self.known and self.known.sequence == sequence and self.known.vmas is vmas
        self.unmoved = vmas if still else None
        if still:
            return 0
        ranges = vmas.ranges[vmas.end <= np.uint64(self.running.arch.user_end)]
        try:
            changed = differing(ranges, read_edges(self.running.kernel, self.mm))
        except SourceUnavailable:
            raw, lost, _ = self.read_raw()
            now = np.stack([raw.start, raw.end], axis=1)
            changed = differing(ranges, now) or len(lost)
        if changed:  # or the tree was torn down while it was read
            self.check_alive()
        return changed

    def forked(self, vmas: VMAs) -> bool:
        """Return whether the process forked since ``vmas`` were read; raises as vmas() does."""
        if self.told is None or self.told[0] is not vmas or self.unmoved is vmas:
            return False
        return forked(self.running.kernel, self.mm, self.told[1])

    def check_alive(self) -> int | None:
        # Another task that reuses this one's memory has neither its start time nor its mm. Returns
        # the mm's sequence: while it is the same, no VMA changes. None if unknown or changing.
        words, errno = read_words(self.running.kernel.memory, self.proof)
        if not errno.any() and words[:2].tolist() == [self.task.start_ns, self.mm]:
            sequence = int(words[-1]) & 0xFFFFFFFF
            return sequence if len(words) > 2 and sequence % 2 == 0 else None
        self.task = task_of(self.running.kernel, self.struct_pid, self.target.pid)
        self.proof = places_of(self.running.kernel, self.task)
        if self.task.mm != self.mm:
            raise ProcessGone(self.target.pid, "ended or exec'ed another program")
        return None

    def read_maps(self) -> VMAs | None:
        # The kernel's text takes the mmap_lock (6.18: a VMA's own lock at a time), for names only.
        try:
            text = self.target.read("maps", self.stall)
        except PagewalkError:
            return None
        if not text:  # the mm it was opened for is gone (proc_maps_open, fs/proc/task_mmu.c)
            self.check_alive()
            raise ProcessGone(self.target.pid, "exec'ed another program while it was opened")
        return self.parse(text)

    def unshared(self, vmas: VMAs) -> Bool:
        """Return a mask of the VMAs whose ordinary pages only this process maps, as far as the
        reverse map shows."""
        known, facts = self.known, self.space.facts
        # With average mapcounts a page that was once mapped by others may still count as shared.
        averages = facts.config is None or facts.average_mapcounts
        if known is None or known.vmas is not vmas or averages:
            return np.zeros(len(vmas), bool)
        from pagewalk.kernel.structs.rmap import unshared

        mask = unshared(self.running.kernel, known.raw)
        mask &= self.check_alive() == known.sequence
        return np.isin(vmas.start, known.raw.start[mask])

    def exclusive(self, addr: U64) -> Bool:
        """Return which of the hugetlb pages at ``addr`` (u64[n]) no other process maps.

        pagemap has a bit for it (56). All False where it may not be read.
        """
        if self.pagemap is None:
            return np.zeros(len(addr), bool)
        words = [self.pagemap.word(at) or 0 for at in addr.tolist()]
        return np.array([word >> 56 & 1 for word in words], bool)

    def shmem_swapped(self, vmas: VMAs, rows: I64) -> Iterator[Evicted]:
        """Yield a function for each object's swapped bytes, by its page cache; raises OSError."""
        from pagewalk.kernel.structs.shmem import covered, swapped_ranges

        kernel = self.running.kernel
        raw, _, _ = self.read_raw()
        found = zip(raw.start.tolist(), raw.end.tolist(), raw.offset.tolist(), strict=True)
        at = {key: row for row, key in enumerate(found)}
        for row in rows.tolist():
            here = at.get((int(vmas.start[row]), int(vmas.end[row]), int(vmas.offset[row])))
            if here is None:
                raise OSError(errno.EAGAIN, SHMEM_CHANGED)
            ranges = swapped_ranges(kernel, int(raw.file[here]))
            if not still_maps(kernel, self.mm, raw, here):  # it may have been another file's
                raise OSError(errno.EAGAIN, SHMEM_CHANGED)
            yield partial(covered, ranges)

    @property
    def holder(self) -> Holder:
        """Return where its structs are, which say what it holds."""
        from pagewalk.kernel.structs.holders import Holder

        return Holder(self.task.address, self.mm)

    def ended_by(
        self, keys: list[tuple[int, int]], holders: Sequence[Holder] = ()
    ) -> list[bool | None]:
        """Return whether each unlinked object ends with the process, by its reference counts.

        With ``holders``, other processes, whether it ends with all of them.
        """
        from pagewalk.kernel.structs.holders import ended_by

        return ended_by(self.running.kernel, [self.holder, *holders], keys)


def open_process_memory(
    name: str, running: RunningKernel, target: Target, budget_ns: int
) -> KernelSource:
    """Return process ``target`` read through ``running``; raises ProcessGone, NoAddressSpace.

    The running kernel stays open for the next process.
    """
    running = as_it_is_now(running)
    struct_pid = pid_behind(running.kernel, target.dirfd)
    task = task_of(running.kernel, struct_pid, target.pid)
    if task.mm is None and task.exiting:
        raise ProcessGone(target.pid, "ended")
    if task.mm is None:
        raise NoAddressSpace(target.pid, f"({task.comm}) has no address space")
    root = running.kernel.field("mm_struct", task.mm, "pgd") - running.direct_map.base
    stall, pagemap = Stall(budget_ns), None
    filesystems = dict(internal_filesystems())
    with suppress(PagewalkError):
        filesystems |= parse_mountinfo(target.read("mountinfo"))
    space = TableSpace(running, read_facts(), task.mm, root)
    proof, held = places_of(running.kernel, task), ExitStack()
    with suppress(PagewalkError):
        pagemap = Pagemap(target.open("pagemap"), target.pid, stall)
        held.callback(os.close, pagemap.fd)
    return KernelSource(
        name, target, stall, filesystems, held, space, running, struct_pid, task, proof, task.mm,
        pagemap,
    )


def places_of(kernel: Kernel, task: Task) -> U64:
    # Since 6.13 mmap_lock has a sequence count, odd while a writer holds the lock
    # (mm_lock_seqcount_begin(), include/linux/mmap_lock.h). That of 6.4 moves only after a change.
    btf, path = kernel.btf, "mm_lock_seq.sequence"
    places = [task.address + btf.offset("task_struct", name) for name in ("start_boottime", "mm")]
    if task.mm is not None and btf.has("mm_struct", path):
        places.append(task.mm + btf.offset("mm_struct", path))
    return np.array(places, np.uint64)
