"""Find out everything about one address of a process: its way through the tables, and its page.

It joins the Trace with the VMA, the frame, the swap device, and what pagemap says; see walk, which
does so for all pages.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import numpy as np

from pagewalk.address import check_canonical, holder_of, locate
from pagewalk.kmem.counts import VM_PFNMAP
from pagewalk.kmem.process import KernelSource
from pagewalk.pages import Backing, Flag, State, VMAs
from pagewalk.proc.pagemap import PAGE, WORD
from pagewalk.proc.swap import device_of, read_swaps
from pagewalk.remarks import remarks
from pagewalk.rules import HOLE_STATES
from pagewalk.states import classify
from pagewalk.vtop import Frame, Opinion, Trace, Translation, compare, hole_around, trace

# How often a chain that changes while it is read is read again. A page that comes and goes faster
# than we read may well look absent, present and absent again five times in a row.
READINGS = 20


def translate(source: KernelSource, asked: str) -> Translation:
    """Return all there is to say of the address that ``asked`` names (see address.locate).

    Raises BadRequest for what is no address, ProcessGone, and BadTable for an unreadable root.
    """
    vmas, arch = source.vmas(), source.machine.arch
    addr = locate(asked, vmas)
    check_canonical(addr, arch)
    row = holder_of(vmas, addr)
    way, opinion, stable = read_chain(source, vmas, row, addr)
    state, frame = look_at(source, way, vmas, row)
    hole = device = None
    if row is not None and way.none and addr < arch.user_end:
        start, end = int(vmas.start[row]), int(vmas.end[row])
        hole = hole_around(arch, source.root, source.read_tables, addr, start, end)
    if Flag.SWAP in way.last.flags:
        device = device_of(int(dict(way.last.says)["type"]), read_swaps() or ())
        # While the entry exists its device is in use, so it was in use when /proc/swaps was read.
        if trace(arch, source.root, source.read_tables, addr) != way:
            device = None
    source.check_alive()
    target = source.target
    found = Translation(
        target.pid, target.name, target.exe, source.name, arch, asked, way, vmas, row, state,
        frame, hole, device, opinion, stable,
    )
    return replace(found, remarks=remarks(found))


def read_chain(
    source: KernelSource, vmas: VMAs, row: int | None, addr: int
) -> tuple[Trace, Opinion, bool]:
    # The chain is read from the top while the process runs: a second reading must meet the same
    # entries, and pagemap in between must say the same, or both are read again.
    tables = (source.machine.arch, source.root, source.read_tables)
    for _ in range(READINGS):
        before = trace(*tables, addr)
        opinion = ask_pagemap(source, before, vmas, row)
        found = trace(*tables, addr)
        stable = before == found
        if stable and opinion.agrees is not False:
            break
    if not stable and opinion.agrees is False:
        opinion = Opinion(opinion.word, None, "the entries changed between readings")
    return found, opinion, stable


def ask_pagemap(source: KernelSource, found: Trace, vmas: VMAs, row: int | None) -> Opinion:
    arch = source.machine.arch
    if source.pagemap_fd < 0:
        return Opinion(None, None, "pagemap is not readable")
    if found.addr >= arch.user_end:
        return Opinion(None, None, "pagemap covers user addresses only")
    word = pagemap_word(source.pagemap_fd, found.addr)
    if word is None:
        return Opinion(None, None, "pagemap ends below this address")
    if row is not None:
        if vmas.flags is not None and int(vmas.flags[row]) & VM_PFNMAP:
            return Opinion(word, None, "pagemap does not show PFN maps")
        if vmas.backing[row] == Backing.HUGETLB.value and not found.present and not found.none:
            return Opinion(word, None, "for hugetlb, pagemap shows only present pages")
    return compare(arch, found, word)


def pagemap_word(fd: int, addr: int) -> int | None:
    """Return the word of the page at ``addr`` from an open pagemap, None beyond its end."""
    raw = os.pread(fd, WORD, addr // PAGE * WORD)
    return int.from_bytes(raw, sys.byteorder) if len(raw) == WORD else None


def look_at(
    source: KernelSource, found: Trace, vmas: VMAs, row: int | None
) -> tuple[State | None, Frame | None]:
    # What stands behind the address, by its entry, its VMA and its frame.
    frame, kflags = None, None
    if found.present and source.frames is not None:
        pfn = np.array([found.pfn], np.uint64)
        kflags, mapcount = source.frames.read(pfn, np.zeros(1, np.bool_))
        frame = Frame(found.pfn, int(kflags[0]), int(mapcount[0]))
    if found.last.doubt is not None:
        return State.DOUBT, frame
    if row is None:
        return None, frame
    if not found.last.flags:
        return State(int(HOLE_STATES[found.last.level.number])), frame
    leaf = found.leaf()
    source.settle(vmas, leaf)
    return State(int(classify(leaf.flags, vmas.backing[[row]], kflags)[0])), frame
