"""pagewalk vtop: one address, level by level."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from pagewalk.commands import DIFFERENCE, PARTIAL, Request, note, opened, output, target_options

if TYPE_CHECKING:
    from pagewalk.errors import SourceUnavailable
    from pagewalk.kmem.process import KernelSource
    from pagewalk.pages import State, VMAs
    from pagewalk.sources import Source
    from pagewalk.vtop import Frame, Opinion, Trace, Translation

READINGS = 5  # how often a chain that changes while it is read is read again


@click.command("vtop")
@target_options("text", "json")
@click.argument("address")
def command(address: str, **options: object) -> int:
    """Translate ADDRESS of TARGET: the entry at every level, raw and in words, to the page.

    ADDRESS is hexadecimal, or the name of a VMA: heap, stack, vdso, a path or its last part.
    NAME+N counts from its first byte, as backtraces do, NAME-N back from its end; N is
    hexadecimal. Reads the real page tables (source ebpf or kcore), twice, and asks pagemap for a
    second opinion: exit code 4 when that differs.

    \b
    pagewalk vtop $$ stack-8
    pagewalk vtop $$ heap+0x1000
    pagewalk vtop $$ libc.so.6+0x2000
    pagewalk vtop $$ heap --format json
    """
    from pagewalk.kmem.process import KernelSource
    from pagewalk.render import view

    request = Request(**options)  # type: ignore[arg-type]
    with opened(request) as source, output(request.output) as out:
        if not isinstance(source, KernelSource):
            raise refusal(source, address)
        found = translate(source, address)
        view(request.format, "vtop")(found, out)
    if found.pagemap.agrees is False:
        note(request, f"pagemap differs: {found.pagemap.why}")
        return DIFFERENCE
    if found.trace.last.doubt is not None or not found.stable:
        note(request, "partial: the entries changed while they were read, or are broken")
        return PARTIAL
    return 0


def translate(source: KernelSource, asked: str) -> Translation:
    """Return the translation of ``asked``; raises BadRequest for what is no address."""
    from dataclasses import replace

    from pagewalk.address import check_canonical, holder_of, locate
    from pagewalk.pages import Flag
    from pagewalk.proc.swap import swap_devices
    from pagewalk.remarks import remarks
    from pagewalk.vtop import Translation, hole_around

    vmas, arch = source.vmas(), source.machine.arch
    addr = locate(asked, vmas)
    check_canonical(addr, arch)
    row = holder_of(vmas, addr)
    trace, opinion, stable = read_chain(source, vmas, row, addr)
    state, frame = look_at(source, trace, vmas, row)
    hole = device = None
    if row is not None and trace.none and addr < arch.user_end:
        start, end = int(vmas.start[row]), int(vmas.end[row])
        hole = hole_around(arch, source.root, source.read_tables, addr, start, end)
    if Flag.SWAP in trace.last.flags:
        device = swap_devices().get(int(dict(trace.last.says)["type"]))
    source.check_alive()
    target = source.target
    found = Translation(
        target.pid, target.name, target.exe, source.name, arch, asked, trace, vmas, row, state,
        frame, hole, device, opinion, stable,
    )
    return replace(found, remarks=remarks(found))


def read_chain(
    source: KernelSource, vmas: VMAs, row: int | None, addr: int
) -> tuple[Trace, Opinion, bool]:
    # The chain is read from the top while the process runs: a second reading must meet the same
    # entries, and pagemap in between must say the same, or both are read again.
    from pagewalk.vtop import Opinion, trace

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
    from pagewalk.kmem.process import VM_PFNMAP
    from pagewalk.pages import Backing
    from pagewalk.vtop import Opinion, compare

    arch = source.machine.arch
    if source.pagemap_fd < 0:
        return Opinion(None, None, "pagemap may not be read")
    if found.addr >= arch.user_end:
        return Opinion(None, None, "pagemap shows the user's half only")
    word = pagemap_word(source.pagemap_fd, found.addr)
    if word is None:
        return Opinion(None, None, "pagemap ends below this address")
    if row is not None:
        if vmas.flags is not None and int(vmas.flags[row]) & VM_PFNMAP:
            return Opinion(word, None, "pagemap shows nothing of a PFN map")
        if vmas.backing[row] == Backing.HUGETLB and not found.present:
            return Opinion(word, None, "of hugetlb pagemap shows pages only")
    return compare(arch, found, word)


def pagemap_word(fd: int, addr: int) -> int | None:
    """Return the word of the page at ``addr`` from an open pagemap, None beyond its end."""
    from pagewalk.proc.pagemap import PAGE, WORD

    raw = os.pread(fd, WORD, addr // PAGE * WORD)
    return int.from_bytes(raw, sys.byteorder) if len(raw) == WORD else None


def look_at(
    source: KernelSource, found: Trace, vmas: VMAs, row: int | None
) -> tuple[State | None, Frame | None]:
    # What stands behind the address, by its entry, its VMA and its frame.
    import numpy as np

    from pagewalk.pages import State
    from pagewalk.states import classify
    from pagewalk.vtop import Frame

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
        return (State.EMPTY if found.last.level.number == 1 else State.NOT_MAPPED), frame
    leaf = found.leaf()
    source.settle(vmas, leaf)
    return State(int(classify(leaf.flags, vmas.backing[[row]], kflags)[0])), frame


def refusal(source: Source, asked: str) -> SourceUnavailable:
    """Return why ``source`` cannot translate, with what it does tell of the address."""
    from pagewalk.address import locate
    from pagewalk.errors import SourceUnavailable
    from pagewalk.sources.procfs import ProcfsSource
    from pagewalk.vtop import spell_pagemap

    why = "vtop follows page tables, and it shows none"
    if isinstance(source, ProcfsSource):
        addr = locate(asked, source.vmas())
        says = spell_pagemap(pagemap_word(source.pagemap_fd, addr))
        why += f"; of {addr:#x} pagemap says {says}"
    return SourceUnavailable(
        source.name, why, "take --source ebpf or kcore (pagewalk doctor says what they need)"
    )
