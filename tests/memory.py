"""Physical memory in which tests lay out page tables, entry by raw entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pagewalk.model.columns import U64, Bool

PAGE = 4096
SLOTS = 512

# What the kernel writes into the entry of a user page table (_PAGE_TABLE):
# present 1, write 2, user 4, accessed 0x20, dirty 0x40.
TABLE = 0x67
# A written anonymous page: the same bits, and NX.
DATA = 1 << 63 | 0x67


@dataclass
class Memory:
    """Page tables by physical address; whatever was not laid out is outside RAM.

    ``reads`` lists the addresses of each call of ``read_tables``. ``later`` replaces a table from
    its second read on, as if the first read had been torn.
    """

    tables: dict[int, U64] = field(default_factory=dict)
    later: dict[int, U64] = field(default_factory=dict)
    reads: list[list[int]] = field(default_factory=list)

    def table(self, phys: int, entries: Mapping[int, int] | Iterable[int] = ()) -> int:
        """Lay out a table at ``phys``, from entries by slot or from slot 0 on; return ``phys``."""
        self.tables[phys] = page(entries)
        return phys

    @property
    def asked(self) -> list[int]:
        """Return every address that was read, in order."""
        return [phys for call in self.reads for phys in call]

    def read_tables(self, phys: U64) -> tuple[U64, Bool]:
        """Return the tables' words and whether each could be read, as a walk asks for them."""
        self.reads.append(phys.tolist())
        entries = np.zeros((len(phys), SLOTS), np.uint64)
        ok = np.zeros(len(phys), np.bool_)
        for row, address in enumerate(phys.tolist()):
            if address in self.tables:
                entries[row], ok[row] = self.tables[address], True
            if address in self.later:
                self.tables[address] = self.later.pop(address)
        return entries, ok


def page(entries: Mapping[int, int] | Iterable[int]) -> U64:
    """Return a table's 512 words, from entries by slot or from slot 0 on."""
    words = np.zeros(SLOTS, np.uint64)
    by_slot = entries if isinstance(entries, Mapping) else dict(enumerate(entries))
    for slot, word in by_slot.items():
        words[slot] = word
    return words


def chain(memory: Memory, first: int, leaf_table: int, slots: Iterable[int]) -> int:
    """Lay out one table per level from ``first`` on, through ``slots`` (top first) to a table.

    Returns the root, which is the table at ``first``; the others follow page by page.
    """
    path = list(slots)
    for depth, slot in enumerate(path):
        here = first + depth * PAGE
        below = leaf_table if depth == len(path) - 1 else here + PAGE
        memory.table(here, {slot: below | TABLE})
    return first
