"""Find out everything about one address of a process: its way through the tables, and its page.

It joins the Trace with the VMA, the frame, the swap device, and what pagemap says; see walk, which
does so for all pages.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pagewalk.model.bits import VM_PFNMAP
from pagewalk.model.columns import Backing, Flag, State, VMAs
from pagewalk.model.rules import HOLE_STATES
from pagewalk.model.states import classify
from pagewalk.pagetables.format import Arch
from pagewalk.pagetables.trace import Trace
from pagewalk.proc.pagemap import Pagemap
from pagewalk.proc.swap import device_of, read_swaps
from pagewalk.sources import Source
from pagewalk.sources.tables import TableSpace
from pagewalk.translate.address import check_canonical, holder_of, locate
from pagewalk.translate.remarks import remarks
from pagewalk.translate.translation import Frame, Opinion, Translation, compare

# How often a chain that changes while it is read is read again. A page that comes and goes faster
# than we read may well look absent, present and absent again five times in a row.
READINGS = 20


def translate(source: Source, asked: str) -> Translation:
    """Return all there is to say of the address that ``asked`` names (see address.locate).

    Raises BadRequest for what is no address, ProcessGone, and BadTable for an unreadable root.
    """
    tables = source.page_tables
    assert tables is not None
    vmas, arch = source.vmas(), tables.running.arch
    addr = locate(asked, vmas)
    check_canonical(addr, arch)
    row = holder_of(vmas, addr)
    way, opinion, stable = read_chain(source, tables, vmas, row, addr)
    state, frame = look_at(tables, way, vmas, row)
    hole = device = None
    if row is not None and way.none and addr < arch.user_end:
        hole = tables.hole_around(addr, int(vmas.start[row]), int(vmas.end[row]))
    if Flag.SWAP in way.last.flags:
        device = device_of(int(dict(way.last.says)["type"]), read_swaps() or ())
        # While the entry exists its device is in use, so it was in use when /proc/swaps was read.
        if tables.trace(addr) != way:
            device = None
    if source.live is not None:
        source.live.changed(vmas)  # raises ProcessGone
    found = Translation(
        *source.who, source.name, arch, asked, way, vmas, row, state, frame, hole, device, opinion,
        stable,
    )
    return replace(found, remarks=remarks(found))


def read_chain(
    source: Source, tables: TableSpace, vmas: VMAs, row: int | None, addr: int
) -> tuple[Trace, Opinion, bool]:
    # The chain is read from the top while the process runs: a second reading must meet the same
    # entries, and pagemap in between must say the same, or both are read again.
    for _ in range(READINGS):
        before = tables.trace(addr)
        opinion = ask_pagemap(source.pagemap, tables.running.arch, before, vmas, row)
        found = tables.trace(addr)
        stable = before == found
        if stable and opinion.agrees is not False:
            break
    if not stable and opinion.agrees is False:
        opinion = Opinion(opinion.word, None, "the entries changed between readings")
    return found, opinion, stable


def ask_pagemap(
    pagemap: Pagemap | None, arch: Arch, found: Trace, vmas: VMAs, row: int | None
) -> Opinion:
    if pagemap is None:
        return Opinion(None, None, "pagemap is not readable")
    if found.addr >= arch.user_end:
        return Opinion(None, None, "pagemap covers user addresses only")
    word = pagemap.word(found.addr)
    if word is None:
        return Opinion(None, None, "pagemap ends below this address")
    if row is not None:
        if vmas.flags is not None and int(vmas.flags[row]) & VM_PFNMAP:
            return Opinion(word, None, "pagemap does not show PFN maps")
        if vmas.backing[row] == Backing.HUGETLB.value and not found.present and not found.none:
            return Opinion(word, None, "for hugetlb, pagemap shows only present pages")
    return compare(arch, found, word)


def look_at(
    tables: TableSpace, found: Trace, vmas: VMAs, row: int | None
) -> tuple[State | None, Frame | None]:
    # What stands behind the address, by its entry, its VMA and its frame.
    frame, kflags = None, None
    if found.present and tables.frames is not None:
        pfn = np.array([found.pfn], np.uint64)
        kflags, mapcount = tables.frames.read(pfn, np.zeros(1, np.bool_))
        frame = Frame(found.pfn, int(kflags[0]), int(mapcount[0]))
    if found.last.doubt is not None:
        return State.DOUBT, frame
    if row is None:
        return None, frame
    if not found.last.flags:
        return State(int(HOLE_STATES[found.last.level.number])), frame
    leaf = found.leaf()
    tables.settle(vmas, leaf)
    return State(int(classify(leaf.flags, vmas.backing[[row]], kflags)[0])), frame
