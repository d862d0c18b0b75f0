"""What was found out about one address: its trace, and what pagemap says of the same page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagewalk.model import soft
from pagewalk.model.columns import Flag, State, VMAs
from pagewalk.pagetables.format import Arch
from pagewalk.pagetables.trace import Trace

# A pagemap word (Documentation/admin-guide/mm/pagemap.rst).
PRESENT, SOFT, PAYLOAD = 1 << 63, 1 << 62, (1 << 55) - 1


@dataclass(frozen=True)
class Opinion:
    """What /proc/PID/pagemap says of the same page: ``word``, None where it was not read.

    ``agrees`` is None where the two cannot be compared; ``why`` then says why, and of a partial
    or failed comparison what it is about.
    """

    word: int | None
    agrees: bool | None
    why: str = ""


def compare(arch: Arch, found: Trace, word: int) -> Opinion:
    """Return whether a pagemap ``word`` says the same as the page tables."""
    last = found.last
    here = Flag.PRESENT in last.flags
    ours = PRESENT if here else SOFT if last.flags else 0
    if word & (PRESENT | SOFT) != ours:
        return Opinion(word, False, f"the page tables say {last.kind}")
    if not ours:
        return Opinion(word, True)
    if not word & PAYLOAD:
        return Opinion(word, True, "pagemap hides frames: only presence was compared")
    if here:
        payload = found.pfn
    else:
        kind, offset = (int(part[0]) for part in arch.soft(np.array([last.entry], np.uint64)))
        payload = soft.pack(kind, found.pfn or offset)
    if word & PAYLOAD != payload:
        theirs = word & PAYLOAD
        return Opinion(word, False, f"the page tables say {payload:#x}, pagemap {theirs:#x}")
    return Opinion(word, True)


def spell_pagemap(word: int | None) -> str:
    """Return what a pagemap ``word`` says, in words."""
    if word is None:
        return "nothing: it ends below this address"
    payload = word & PAYLOAD
    if word & PRESENT:
        return f"present, frame {payload:#x}" if payload else "present, its frame is hidden"
    if word & SOFT:
        kind, offset = soft.unpack(payload)
        return f"swap or another software entry, type {kind}, offset {offset}"
    return "no page"


@dataclass(frozen=True)
class Frame:
    """A page frame: ``kflags`` as /proc/kpageflags has it (of the folio's head), ``mapcount``."""

    pfn: int
    kflags: int
    mapcount: int


@dataclass(frozen=True)
class Translation:
    """All that was found out about one address of one process.

    ``row`` is the VMA that holds it, ``state`` what stands behind it; None outside every VMA.
    ``frame`` is of the base page at the address; ``hole`` the bounds, inside the VMA, of what is
    not populated around it; ``device`` the path of the swap device. ``stable`` says that a second
    reading met the same entries. ``remarks`` are sentences on what is not plain from the bits.
    """

    pid: int
    name: str
    exe: str | None
    source: str
    arch: Arch
    asked: str
    trace: Trace
    vmas: VMAs
    row: int | None
    state: State | None
    frame: Frame | None
    hole: tuple[int, int] | None
    device: str | None
    pagemap: Opinion
    stable: bool
    remarks: tuple[str, ...] = ()
