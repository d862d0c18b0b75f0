"""How a process maps large folios, page by page: the oracle of `maps --huge`.

Simple on purpose, and sharing no code with src. Whether a PMD maps a folio is not seen here: a
whole, aligned folio of 2 MiB may be mapped either way.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.kernel_says import (
    KPF_ANON,
    KPF_HEAD,
    KPF_HUGE,
    KPF_SWAPCACHE,
    KPF_TAIL,
    KPF_ZERO,
    PAGE,
    PFN,
    PRESENT,
    VmaSays,
    read_pagemap,
)


@dataclass
class Mapped:
    """Bytes of one VMA; ``aligned``: whole folios at a multiple of their size."""

    aligned: int = 0
    unaligned: int = 0
    partly: int = 0
    missing: int = 0


@dataclass
class Told:
    """What the oracle says: by the start of each VMA, and of the process."""

    vmas: dict[int, Mapped] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)
    missing: int = 0
    stranded: int = 0


class Words:
    """A file with a word for each frame, of which each word is read once."""

    def __init__(self, name: str) -> None:
        self.file = open(f"/proc/{name}", "rb", buffering=0)  # noqa: SIM115
        self.known: dict[int, int] = {}

    def __getitem__(self, pfn: int) -> int:
        if pfn not in self.known:
            self.file.seek(8 * pfn)
            self.known[pfn] = int.from_bytes(self.file.read(8), "little")
        return self.known[pfn]


def folio_at(flags: Words, pfn: int) -> tuple[int, int]:
    """Return the first frame of a page's folio and how many pages it has."""
    head = pfn
    while flags[head] & KPF_TAIL:
        head -= 1
    last = head + 1
    while flags[head] & KPF_HEAD and flags[last] & KPF_TAIL:
        last += 1
    return head, last - head


def look(pid: int, vmas: list[VmaSays]) -> Told:
    """Return how process ``pid`` maps the large folios of its ``vmas``."""
    flags, counts, told = Words("kpageflags"), Words("kpagecount"), Told()
    everywhere: dict[tuple[int, int], set[int]] = defaultdict(set)
    broken = set()
    for vma in vmas:
        here: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        entries = read_pagemap(pid, vma.start, vma.end).tolist() if vma.fields["Rss"] else []
        for at, entry in enumerate(entries):
            pfn = entry & PFN
            if entry & PRESENT and flags[pfn] & (KPF_HEAD | KPF_TAIL) and not (
                    flags[pfn] & (KPF_HUGE | KPF_ZERO)):
                here[folio_at(flags, pfn)][pfn] = vma.start + at * PAGE
        mapped = told.vmas[vma.start] = Mapped()
        for (head, pages), addresses in here.items():
            first = addresses.get(head, 0)
            whole = {head + n: first + n * PAGE for n in range(pages)}
            kind = ("partly" if addresses != whole else
                    "unaligned" if first % (pages * PAGE) else "aligned")
            setattr(mapped, kind, getattr(mapped, kind) + len(addresses) * PAGE)
            mapped.missing += (pages - len(addresses)) * PAGE
            if kind == "partly":
                broken.add((head, pages))
            everywhere[head, pages] |= set(addresses)
            told.sizes.add(pages * PAGE)
    for head, pages in broken:
        rest = set(range(head, head + pages)) - everywhere[head, pages]
        told.missing += len(rest) * PAGE
        if flags[head] & KPF_ANON and not flags[head] & KPF_SWAPCACHE:
            told.stranded += sum(counts[pfn] == 0 for pfn in rest) * PAGE
    return told
