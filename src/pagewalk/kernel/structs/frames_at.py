"""Which frame each of many page tables maps at an address: one entry a level of each is read."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.readers.memory import read_words
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import I64, U64, Flag
from pagewalk.pagetables.format import PTE, Arch

_PRESENT = np.uint32(Flag.PRESENT)


def frames_at(
    kernel: Kernel, direct_map: DirectMap, arch: Arch, root: U64, addr: U64
) -> I64:
    """Return the frame (i64) of the page at each of ``addr`` (u64[n]), -1 where there is none.

    ``root`` (u64[n]) are physical addresses of PGDs. What cannot be read, or makes no sense, maps
    nothing: tables may be freed while they are read.
    """
    found = np.full(len(addr), -1, np.int64)
    rows, table = np.arange(len(addr)), root
    for level in arch.levels:
        index = addr[rows] >> np.uint64(level.shift) & np.uint64((1 << level.bits) - 1)
        entry, errno = read_words(
            kernel.memory, direct_map.addresses(table) + index * np.uint64(8))
        there = (errno == 0) & ~arch.none(entry, level)
        below = np.zeros(len(rows), bool)
        if level.number > PTE:
            below = there & arch.table(entry, level)
        leaf = np.flatnonzero(there & ~below)
        leaf = leaf[~arch.reserved(entry[leaf], level)]
        flags, pfn = arch.decode(entry[leaf], level)
        present = flags & _PRESENT != 0
        at = rows[leaf[present]]
        inside = (addr[at] & np.uint64((1 << level.shift) - 1)) >> np.uint64(arch.page_shift)
        found[at] = (pfn[present] + inside).astype(np.int64)
        table = arch.address(entry[below])
        in_ram = table >> np.uint64(arch.page_shift) <= np.uint64(arch.last_ram_frame)
        rows, table = rows[below][in_ram], table[in_ram]
    return found
