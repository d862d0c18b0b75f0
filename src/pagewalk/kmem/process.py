"""A process read from kernel memory: its VMAs and its real page tables, without any lock.

What every source over kernel memory shares, whatever reads the memory (eBPF, /proc/kcore).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from pagewalk.errors import (
    NoAddressSpace,
    PagewalkError,
    ProcessGone,
    SourceUnavailable,
)
from pagewalk.facts import Facts
from pagewalk.kmem.counts import (
    HUGE_KINDS,
    KINDS,
    PRESENT,
    VM_PFNMAP,
    alone_counts,
    gap_counts,
    shared_frames,
    tallied,
)
from pagewalk.kmem.direct import SLOTS
from pagewalk.kmem.frames import StructPages
from pagewalk.kmem.holders import ended_by
from pagewalk.kmem.hugetlb import in_shared_table
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.machine import Machine, as_it_is_now
from pagewalk.kmem.memory import read_pages, read_words
from pagewalk.kmem.naming import agreeing, flags_of, with_flags
from pagewalk.kmem.pieces import piece_together
from pagewalk.kmem.rmap import unshared
from pagewalk.kmem.shmem import covered, swapped_ranges
from pagewalk.kmem.task import Task, pid_behind, read_mm, task_of
from pagewalk.kmem.vmas import (
    RawVmas,
    forked,
    read_each,
    read_edges,
    read_vmas,
    still_maps,
)
from pagewalk.pages import (
    I64,
    LEVEL_SHIFT,
    U64,
    Backing,
    Bool,
    Counts,
    Flag,
    Holes,
    Leaves,
    Shared,
    State,
    VMAs,
    Withheld,
)
from pagewalk.pgtable import walk_tables
from pagewalk.proc.frames import FrameReader
from pagewalk.proc.kernel import read_facts
from pagewalk.proc.maps import LastMaps, internal_filesystems, parse_mountinfo
from pagewalk.proc.pagemap import PAGE
from pagewalk.proc.stall import Stall
from pagewalk.proc.swap import Evicted
from pagewalk.proc.target import Target
from pagewalk.ranges import differing, holder
from pagewalk.rules import HOLE_STATES, ORDINARY
from pagewalk.scan import NO_DOUBTS, NO_LEAVES, Entries
from pagewalk.soft import pack
from pagewalk.states import classify, has
from pagewalk.tally import Gaps, Memo, Plain, count_by_reading, count_tables, sweep

SHMEM_CHANGED = "a mapping of shared memory changed after the walk; --freeze prevents that"
NOWHERE = np.zeros((0, 2), np.uint64)
RETRIES = 3
VMA_TRIES = 2
PMD_SHIFT = 21  # every architecture with a direct map that is known here


class Known(NamedTuple):
    """The VMAs as they are while the mm's ``sequence`` stands still: what maps told of them, what
    the maple tree did, and both together."""

    sequence: int
    named: VMAs
    raw: RawVmas
    vmas: VMAs


@dataclass(eq=False)
class KernelSource:
    """A process read through kernel memory; see sources.Source.

    ``mm`` is the address of its mm_struct, ``root`` the physical address of its PGD, both as they
    were when it was opened. ``task`` is the thread that the target's directory is of, and
    ``struct_pid`` the address of its struct pid, which that open directory keeps. ``proof`` u64[2]
    is where the task's start time and mm lie, with the place of the mm's sequence where the kernel
    keeps one. ``pagemap_fd`` serves hugetlb only and is -1 where refused. ``known`` are the VMAs
    as they were last read, ``restless`` notes what could not be read of them, and ``told`` is what
    vmas() returned last, with what it was made from; ``unmoved`` are VMAs that changed() found
    unchanged by the mm's sequence alone.
    """

    name: str
    machine: Machine
    target: Target
    stall: Stall
    struct_pid: int
    task: Task
    proof: U64
    mm: int
    root: int
    pagemap_fd: int
    filesystems: dict[int, str]
    facts: Facts
    huge: bool = True
    tables: bool = True
    notes: tuple[Withheld, ...] = ()
    last: LastMaps = field(default_factory=LastMaps)
    known: Known | None = None
    restless: Withheld | None = None
    told: tuple[VMAs, RawVmas] | None = None
    unmoved: VMAs | None = None
    memo: Memo = field(default_factory=Memo)

    @property
    def frames(self) -> FrameReader | None:
        """Return what tells flags and mapcounts of frames."""
        return self.machine.frames

    @property
    def withheld(self) -> tuple[Withheld, ...]:
        """Return what this source cannot tell of this process."""
        restless = () if self.restless is None else (self.restless,)
        return (*self.machine.notes, *self.notes, *restless)

    def vmas(self) -> VMAs:
        """Return the VMAs of the maple tree, named by maps where it may be read.

        If the process maps and unmaps all the time, each VMA is as it was at some moment of its
        own, and ``withheld`` tells what could not be read even so. Raises ProcessGone when the task
        has ended or has another mm.
        """
        sequence = self.check_alive()
        for _ in range(VMA_TRIES):
            named = self.read_maps()
            if self.known and self.known.sequence == sequence and self.known.named is named:
                return self.known.vmas
            raw, lost, at_once = self.read_raw()
            # VMAs of many moments will not be those of maps the next time either.
            if named is None or not at_once or self.agree(named, raw):
                break
        self.restless = None
        if named is not None and not len(lost) and self.agree(named, raw):
            vmas = with_flags(named, flags_of(named, raw))
        else:
            vmas, self.restless = piece_together(
                self.machine.kernel, named, raw, lost, self.filesystems, self.machine.arch.user_end
            )
        self.told = vmas, raw
        if self.check_alive() == sequence and sequence is not None and named is not None:
            self.known = Known(sequence, named, raw, vmas)
        return vmas

    def agree(self, named: VMAs, raw: RawVmas) -> bool:
        # Whether maps and the maple tree have the same VMAs; maps also has the gate VMA.
        gate = int((named.start >= np.uint64(self.machine.arch.user_end)).sum())
        return int(agreeing(named, raw).sum()) == len(raw.start) == len(named) - gate

    def read_raw(self) -> tuple[RawVmas, U64, bool]:
        # The VMAs, where none could be read, u64[n, 2], and whether all are of one moment.
        kernel = self.machine.kernel
        with suppress(SourceUnavailable):
            return read_vmas(kernel, self.mm), NOWHERE, True
        self.check_alive()  # while an mm is torn down its VMAs change, too
        return *read_each(kernel, self.mm), False

    def changed(self, vmas: VMAs) -> int:
        """Return how many of ``vmas`` have changed; raises ProcessGone as vmas() does."""
        sequence = self.check_alive()
        still = self.known and self.known.sequence == sequence and self.known.vmas is vmas
        self.unmoved = vmas if still else None
        if still:
            return 0
        ranges = vmas.ranges[vmas.end <= np.uint64(self.machine.arch.user_end)]
        try:
            changed = differing(ranges, read_edges(self.machine.kernel, self.mm))
        except SourceUnavailable:
            raw, lost, _ = self.read_raw()
            now = np.stack([raw.start, raw.end], axis=1)
            changed = differing(ranges, now) or len(lost)
        if changed:  # or the tree was torn down under the reader
            self.check_alive()
        return changed

    def forked(self, vmas: VMAs) -> bool:
        """Return whether the process forked since ``vmas`` were read; raises as vmas() does."""
        if self.told is None or self.told[0] is not vmas or self.unmoved is vmas:
            return False
        return forked(self.machine.kernel, self.mm, self.told[1])

    def check_alive(self) -> int | None:
        # Another task that reuses this one's memory has neither its start time nor its mm. Returns
        # the mm's sequence: while it is the same, no VMA changes. None: not known, or one does.
        words, errno = read_words(self.machine.kernel.memory, self.proof)
        if not errno.any() and words[:2].tolist() == [self.task.start_ns, self.mm]:
            sequence = int(words[-1]) & 0xFFFFFFFF
            return sequence if len(words) > 2 and sequence % 2 == 0 else None
        self.task = task_of(self.machine.kernel, self.struct_pid, self.target.pid)
        self.proof = places_of(self.machine.kernel, self.task)
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
        return self.last.parse(text, self.filesystems)

    def leaves(self, vmas: VMAs, ranges: U64) -> Iterator[Entries]:
        """Yield the leaves, holes and doubts of the real page tables in ``ranges``."""
        below = ranges[:, 1] <= np.uint64(self.machine.arch.user_end)
        user, above = ranges[below], ranges[~below]
        for batch in walk_tables(
            self.machine.arch, self.root, self.read_tables, user, retries=RETRIES
        ):
            if len(batch.leaves):
                self.settle(vmas, batch.leaves)
            yield batch
        if len(above):  # the gate VMA is in the kernel's half, not in this process's tables
            size = above[:, 1] - above[:, 0]
            gate = Holes(above[:, 0], size, np.zeros(len(above), np.uint8))
            yield Entries(NO_LEAVES, gate, NO_DOUBTS)

    def sums(self, vmas: VMAs, ranges: U64) -> Iterator[Entries | Counts | Shared]:
        """Yield what ``leaves`` does, in no order; whole tables of ordinary pages as Counts."""
        frames = self.machine.frames
        if not isinstance(frames, StructPages):
            yield from self.leaves(vmas, ranges)
            return
        below = ranges[:, 1] <= np.uint64(self.machine.arch.user_end)
        user = ranges[below]
        row = holder(user[:, 0], vmas.ranges)
        plain = ORDINARY[vmas.backing[row]]
        if vmas.flags is not None:  # else the VMA has a say in what its pages are
            plain &= vmas.flags[row] & np.uint64(VM_PFNMAP) == 0
        alone: Bool | None = None
        runs: list[Counts | Shared] = []

        # sweep() yields the plain tables of a group before it asks about the next: the runs' own.
        def count_plain(owner: I64, phys: U64) -> I64:
            nonlocal alone
            runs.clear()
            pages = np.full(len(phys), -1, np.int64)
            if alone is None:
                alone = self.unshared(vmas)[row] & plain
            once = np.flatnonzero(alone[owner])
            pages[once] = self.count_many(owner[once], phys[once])
            rest = np.flatnonzero((plain & ~alone)[owner])
            condenser = frames.condenser_for(len(rest) * SLOTS)
            if len(rest) and condenser is not None:
                addresses = self.machine.direct_map.addresses(phys[rest])
                found, pages[rest] = frames.runs(condenser, addresses)
                parts, torn = shared_frames(
                    self.machine.arch, self.read_tables, vmas, row[owner[rest]], phys[rest], found
                )
                pages[rest[torn]] = -1
                runs.extend(parts)
            return pages

        for part in sweep(
            self.machine.arch, self.root, self.read_tables, user, retries=RETRIES,
            count_plain=count_plain, memo=self.memo,
        ):
            if isinstance(part, Plain):
                assert alone is not None
                yield from runs
                once = alone[part.owner]
                yield alone_counts(row[part.owner[once]], part.pages[once])
                continue
            if isinstance(part, Gaps):
                yield gap_counts(row, part)
                continue
            if len(part.leaves):
                self.settle(vmas, part.leaves)
            yield part
        if not below.all():
            yield from self.leaves(vmas, ranges[~below])

    def unshared(self, vmas: VMAs) -> Bool:
        """Return a mask of the VMAs whose ordinary pages only this process maps, as far as the
        reverse map tells."""
        known = self.known
        # With average mapcounts a page that was once mapped by others may still count as shared.
        averages = self.facts.config is None or self.facts.average_mapcounts
        if known is None or known.vmas is not vmas or averages:
            return np.zeros(len(vmas), bool)
        mask = unshared(self.machine.kernel, known.raw)
        mask &= self.check_alive() == known.sequence
        return np.isin(vmas.start, known.raw.start[mask])

    def count_many(self, owner: I64, phys: U64) -> I64:
        """Return how many pages the whole tables at ``phys`` (u64[n]) map; see CountPlain."""
        del owner
        shortcuts = self.machine.shortcuts
        counter = None if shortcuts is None else shortcuts.counter_for(len(phys) * SLOTS)
        if counter is None:
            return count_by_reading(self.machine.arch, self.read_tables, phys)
        return counter.count(self.machine.direct_map.addresses(phys))

    def settle(self, vmas: VMAs, leaves: Leaves) -> None:
        # What the VMA and the kernel's bookkeeping add to an entry.
        row = holder(leaves.addr, vmas.ranges)
        present = leaves.flags & PRESENT != 0
        if vmas.flags is not None:
            mapped = present & (vmas.flags[row] & np.uint64(VM_PFNMAP) != 0)
            leaves.flags[mapped] |= np.uint32(Flag.SPECIAL)
        plain = leaves.flags & (PRESENT | np.uint32(Flag.SPECIAL)) == PRESENT
        leaves.flags[plain] |= np.uint32(Flag.NORMAL)
        soft = np.flatnonzero(leaves.flags & np.uint32(Flag.SWAP | Flag.MARKER) != 0)
        if len(soft):
            assert leaves.pfn is not None
            kind, offset = self.machine.arch.soft(self.machine.arch, leaves.entry[soft])
            leaves.pfn[soft] = pack(kind, offset)
        hugetlb = present & (vmas.backing[row] == Backing.HUGETLB.value)
        if hugetlb.any():
            self.mark_exclusive(leaves, np.flatnonzero(hugetlb))

    def mark_exclusive(self, leaves: Leaves, rows: I64) -> None:
        # Whether the page table of a hugetlb page is shared with another process, and so the page,
        # is told by bit 56 of pagemap.
        if self.pagemap_fd < 0:
            return
        if not self.facts.pmd_sharing_told:  # there bit 56 is the mapcount's alone
            rows = rows[~self.in_shared_table(leaves, rows)]
        word = np.zeros(1, np.uint64)
        for at in rows.tolist():
            with self.stall.timed("pagemap"):
                os.preadv(self.pagemap_fd, [word.data.cast("B")], int(leaves.addr[at]) // PAGE * 8)
            if int(word[0]) >> 56 & 1:
                leaves.flags[at] |= np.uint32(Flag.EXCLUSIVE)

    def in_shared_table(self, leaves: Leaves, rows: I64) -> Bool:
        small = leaves.shift[rows] == PMD_SHIFT  # tables of larger leaves are never shared
        shared = np.zeros(len(rows), bool)
        machine, addr = self.machine, leaves.addr[rows[small]]
        shared[small] = in_shared_table(
            machine.kernel, machine.direct_map, machine.mem_map, machine.arch, self.root, addr
        )
        return shared

    def read_tables(self, phys: U64) -> tuple[U64, Bool]:
        """Return (entries u64[n, 512], readable bool[n]) of the tables at ``phys`` (u64[n])."""
        words, errno = read_pages(
            self.machine.kernel.memory, self.machine.direct_map.addresses(phys)
        )
        return words, errno == 0

    def counts(self, vmas: VMAs, ranges: U64) -> Iterator[Counts]:
        """Yield bytes of ``ranges`` by VMA and state, whole page tables at a time."""
        user = ranges[ranges[:, 1] <= np.uint64(self.machine.arch.user_end)]
        row = holder(user[:, 0], vmas.ranges)
        # The huge zero page looks like any other huge leaf until its frame is looked at.
        tally = count_tables(
            self.machine.arch,
            self.root,
            self.read_tables,
            user,
            retries=RETRIES,
            count_plain=self.count_many,
            memo=self.memo,
        )
        huge = tally.size[:, HUGE_KINDS].any(axis=1)
        huge &= vmas.backing[row] == Backing.ANON.value
        yield tallied(vmas, row, tally.size, ~huge)
        for batch in self.leaves(vmas, user[huge]) if huge.any() else ():
            yield self.count_batch(vmas, batch)

    def shmem_swapped(self, vmas: VMAs, rows: I64) -> Iterator[Evicted]:
        """Yield what the page cache of each object tells; raises OSError when it will not."""
        kernel = self.machine.kernel
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

    def ended_by(self, keys: list[tuple[int, int]]) -> list[bool | None]:
        """Return whether each unlinked object ends with the process, by its reference counts."""
        return ended_by(self.machine.kernel, self.task.address, self.mm, keys)

    def page_tables(self) -> int | None:
        """Return the bytes of PTE, PMD and PUD tables, as VmPTE counts them, deposits apart."""
        everything = np.array([[0, self.machine.arch.user_end]], np.uint64)
        tally = count_tables(self.machine.arch, self.root, self.read_tables, everything)
        return int(tally.tables[1:4].sum()) * PAGE

    def count_batch(self, vmas: VMAs, batch: Entries) -> Counts:
        # The rows of a real walk as Counts, with the zero pages told by their frames.
        leaves = batch.leaves
        assert leaves.pfn is not None
        present = leaves.flags & PRESENT != 0
        zero = present & (leaves.pfn == np.uint64(self.machine.zero_pfn))
        if self.machine.frames is not None:
            huge = np.flatnonzero(present & (leaves.flags & np.uint32(Flag.HUGE) != 0))
            pfns = leaves.pfn[huge]
            kflags, _ = self.machine.frames.read(pfns, np.zeros(len(pfns), bool))
            zero[huge] |= has(kflags, "zero_page")
        leaves.flags[zero] |= np.uint32(Flag.ZERO)
        addr = np.concatenate([leaves.addr, batch.holes.addr, batch.doubts.addr])
        row = holder(addr, vmas.ranges)
        state = np.concatenate(
            [
                classify(leaves.flags, vmas.backing[row[: len(leaves)]], None),
                HOLE_STATES[batch.holes.level],
                np.full(len(batch.doubts), State.DOUBT.value, np.uint8),
            ]
        )
        # Without a look at the frame an anonymous page cannot be told from one of a file's VMA.
        state[np.isin(state, KINDS)] = State.PRESENT
        level = np.concatenate([batch.holes.level, batch.doubts.level]).astype(np.uint32)
        flags = np.concatenate([leaves.flags, level << np.uint32(LEVEL_SHIFT)])
        size = np.concatenate([leaves.size, batch.holes.size, batch.doubts.size])
        return Counts(row, state, flags, size)

    def close(self) -> None:
        """Give back what belongs to this process; the machine stays open for the next."""
        if self.pagemap_fd >= 0:
            os.close(self.pagemap_fd)


def open_process_memory(
    name: str, machine: Machine, target: Target, budget_ns: int
) -> KernelSource:
    """Return process ``target`` read through ``machine``; raises ProcessGone, NoAddressSpace."""
    machine = as_it_is_now(machine)
    struct_pid = pid_behind(machine.kernel, target.dirfd)
    task = task_of(machine.kernel, struct_pid, target.pid)
    if task.mm is None and task.exiting:
        raise ProcessGone(target.pid, "ended")
    if task.mm is None:
        raise NoAddressSpace(target.pid, f"({task.comm}) has no address space")
    pgd = read_mm(machine.kernel, task.mm).pgd
    try:
        pagemap_fd = target.open("pagemap")
    except PagewalkError:
        pagemap_fd = -1
    filesystems = dict(internal_filesystems())
    with suppress(PagewalkError):
        filesystems |= parse_mountinfo(target.read("mountinfo"))
    root = pgd - machine.direct_map.base
    proof = places_of(machine.kernel, task)
    return KernelSource(
        name, machine, target, Stall(budget_ns), struct_pid, task, proof, task.mm, root, pagemap_fd,
        filesystems, read_facts(),
    )


def places_of(kernel: Kernel, task: Task) -> U64:
    # Since 6.13 mmap_lock counts: odd while who changes VMAs holds it (mm_lock_seqcount_begin() in
    # include/linux/mmap_lock.h). The counter of 6.4 moves only after the change.
    btf, path = kernel.btf, "mm_lock_seq.sequence"
    places = [task.address + btf.offset("task_struct", name) for name in ("start_boottime", "mm")]
    if task.mm is not None and btf.has("mm_struct", path):
        places.append(task.mm + btf.offset("mm_struct", path))
    return np.array(places, np.uint64)
