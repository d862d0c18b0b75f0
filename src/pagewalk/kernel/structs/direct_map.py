"""Where physical memory and its struct pages are in the kernel's address space: found and verified.

The kernel maps all RAM at one base, chosen at boot (page_offset_base), and all struct pages at
another (vmemmap_base). Neither is visible to user space. Both are found here from structs of this
process, and trusted only after a random token in a page of ours was read through them.
Documentation/arch/x86/x86_64/mm.rst has the map.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import read_bytes, read_word, read_words
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import file_behind
from pagewalk.model.columns import U64, Bool, Flag
from pagewalk.model.errors import SourceUnavailable, Unsupported
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.format import PTE, Arch, Level
from pagewalk.proc.files import read_bytes as read_file
from pagewalk.proc.kernel import read_facts
from pagewalk.proc.zones import read_memory

_ATTEMPTS = 3
# Most bases to try side by side: all that there may be with 4 levels.
_AT_ONCE = 1 << 16
_WORD = 8


class DirectMap(NamedTuple):
    """How physical addresses map to kernel addresses.

    ``base`` is the kernel address of physical byte 0, ``arch`` the paging format that it was found
    with, without the bounds of memory.
    """

    base: int
    arch: Arch

    def addresses(self, phys: U64) -> U64:
        """Return the kernel addresses (u64[n]) of physical addresses (u64[n])."""
        return phys + np.uint64(self.base)


class MemMap(NamedTuple):
    """Where struct pages are: ``base`` is the kernel address of PFN 0's, ``size`` its bytes."""

    base: int
    size: int


class _Token(NamedTuple):
    """A page of ours: where it is mapped, its contents, and the memfd that holds it."""

    address: int
    text: bytes
    fd: int


@contextmanager
def _token_page() -> Iterator[_Token]:
    # Shared memory rather than anonymous, so that the page cache knows its struct page. One page,
    # written, so that a PTE maps it and it does not move except by migration.
    fd = os.memfd_create("pagewalk-token")
    text = os.urandom(32)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        page = mmap.mmap(fd, mmap.PAGESIZE)
        page[: len(text)] = text
        yield _Token(ctypes.addressof(ctypes.c_char.from_buffer(page)), text, fd)
    finally:
        os.close(fd)


def find_direct_map(kernel: Kernel) -> DirectMap:
    """Find the direct map's base and the number of levels, and prove them by a token of our own.

    Raises SourceUnavailable when no base shows the token, Unsupported on an architecture that is
    not in ARCHES.
    """
    formats = _formats()
    pgd = own_pgd(kernel)
    for _ in range(_ATTEMPTS):
        with _token_page() as token:
            for arch in formats:
                for bases in candidates(arch, pgd):
                    for base in _proved_bases(kernel, token, pgd, arch, bases):
                        return DirectMap(base, arch)
    raise SourceUnavailable(
        "kernel memory",
        "no direct-map base shows our own page, whatever the number of levels of page tables",
        "report it with the kernel's version and /proc/zoneinfo",
    )


def _formats() -> list[Arch]:
    # This kernel's paging format, once for each number of levels.
    facts = read_facts()
    if facts.architecture not in ARCHES:
        known = ", ".join(ARCHES)
        raise Unsupported(f"direct map that is understood on {facts.architecture}", f"{known} only")
    try:
        cpuinfo = read_file("/proc/cpuinfo")
    except OSError:  # subset=pid
        cpuinfo = b""
    arch = ARCHES[facts.architecture]
    era = arch.era_of(facts.release, cpuinfo, facts.swap_types)
    return [arch.on(levels, era) for levels in arch.depths]


def candidates(arch: Arch, pgd: int) -> Iterator[U64]:
    """Yield the direct map's possible bases, u64[n], in batches, those nearest to ``pgd`` first."""
    # The base lies a whole number of steps below any direct-map address, at most as many as there
    # are up to the end of RAM, where all page tables are: 10 to 1000. Without /proc/zoneinfo, up to
    # the end of the direct map: 65,536, or with 5 levels 33 million. None lies above the true one
    # by more than that, so the addresses stay in the direct map or the hole that follows it, never
    # in an I/O mapping.
    step = arch.direct_map_step
    count = (read_memory().ram_end or arch.direct_map_size[len(arch.levels)]) // step + 2
    for first in range(0, count, _AT_ONCE):
        steps = np.arange(first, min(first + _AT_ONCE, count), dtype=np.uint64)
        yield np.uint64(pgd // step * step) - steps * np.uint64(step)


def _proved_bases(
    kernel: Kernel, token: _Token, pgd: int, arch: Arch, bases: U64
) -> Iterator[int]:
    tables = np.full(len(bases), pgd, np.uint64)
    for level in arch.levels:
        entries, errno = read_words(kernel.memory, tables + np.uint64(_place(level, token.address)))
        alive = (errno == 0) & _leads_on(arch, entries, level)
        bases = bases[alive]
        tables = arch.address(entries[alive]) + bases
    for base, page in zip(bases.tolist(), tables.tolist(), strict=True):
        if _holds(kernel, page, token.text):
            yield base


def _place(level: Level, address: int) -> int:
    # Where in a table the entry for `address` lies, bytes.
    return _WORD * (address >> level.shift & (1 << level.bits) - 1)


def _leads_on(arch: Arch, entries: U64, level: Level) -> Bool:
    # Which entries name a table, or at the last level a base page that the CPU may use.
    if level.number > PTE:
        return arch.table(entries, level)
    flags, _ = arch.decode(entries, level)
    usable: Bool = flags & np.uint32(Flag.PRESENT | Flag.PROT_NONE) == np.uint32(Flag.PRESENT)
    return usable


def _holds(kernel: Kernel, address: int, text: bytes) -> bool:
    try:
        return read_bytes(kernel.memory, address, len(text)) == text
    except OSError:
        return False


def own_frame(kernel: Kernel, direct_map: DirectMap, page: mmap.mmap) -> int:
    """Return the PFN of ``page``, a present page of ours; raises OSError if nothing is mapped."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return own_phys(kernel, direct_map, address) // mmap.PAGESIZE


def own_phys(kernel: Kernel, direct_map: DirectMap, address: int) -> int:
    """Return the physical address of the base page at our ``address``, small or huge.

    Raises OSError if nothing is mapped there.
    """
    table, arch = own_pgd(kernel), direct_map.arch
    for level in arch.levels:
        entry = np.array([read_word(kernel.memory, table + _place(level, address))], np.uint64)
        if level.number > PTE and arch.table(entry, level)[0]:
            table = int(arch.address(entry)[0]) + direct_map.base
            continue
        flags, pfn = arch.decode(entry, level)
        if not flags[0] & np.uint32(Flag.PRESENT):
            raise OSError(f"nothing is mapped at {address:#x}")
        base = address & (1 << level.shift) - (1 << arch.page_shift)
        return (int(pfn[0]) << arch.page_shift) + base
    raise AssertionError("the loop ends at the PTE")


def find_mem_map(kernel: Kernel, direct_map: DirectMap) -> MemMap:
    """Find where struct pages begin, and verify it with two pages of ours.

    The page cache of a memfd points to its page's struct page; the page's PFN comes from the page
    tables. Raises SourceUnavailable when the two pages do not agree.
    """
    size = kernel.btf.size("page")
    for _ in range(_ATTEMPTS):
        with _token_page() as first, _token_page() as second:
            bases = {_mem_map_base(kernel, direct_map, token, size) for token in (first, second)}
        if len(bases) == 1 and None not in bases:
            return MemMap(next(base for base in bases if base is not None), size)
    raise SourceUnavailable(
        "kernel memory",
        "the struct pages of two pages of our own are not in one array",
        "take /proc/kpageflags",
    )


def _mem_map_base(kernel: Kernel, direct_map: DirectMap, token: _Token, size: int) -> int | None:
    # None if the page moved between the two reads, or its struct page is not as expected.
    mapping = kernel.field("file", file_behind(kernel, token.fd), "f_mapping")
    # A file of one page: the root of its xarray is the page itself, a struct folio or page.
    page = kernel.field("address_space", mapping, "i_pages.xa_head")
    phys = own_phys(kernel, direct_map, token.address)
    same = _holds(kernel, phys + direct_map.base, token.text)
    points_back = page and kernel.field("page", page, "mapping") == mapping
    return page - phys // mmap.PAGESIZE * size if same and points_back else None


def own_pgd(kernel: Kernel) -> int:
    """Return the kernel address of this process's own top page table."""
    return kernel.field("mm_struct", own_mm(kernel), "pgd")


def own_mm(kernel: Kernel) -> int:
    """Return the kernel address of this process's own mm_struct."""
    mm = kernel.field("task_struct", kernel.current, "mm")
    if not mm:
        raise SourceUnavailable("kernel memory", "our own task has no mm", "report it")
    return mm
