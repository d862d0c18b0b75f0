"""What a paging format is: levels and entries as data, for one walk over them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pagewalk.errors import BadRequest
from pagewalk.pages import U32, U64, Bool
from pagewalk.soft import SwapTypes

LEVEL_NAMES = {1: "PTE", 2: "PMD", 3: "PUD", 4: "P4D", 5: "PGD"}


class Level(NamedTuple):
    """One level of tables: a table has ``1 << bits`` entries of ``1 << shift`` bytes each.

    ``number`` is that of Holes.level; a folded level is left out, so the top is always the PGD.
    """

    number: int
    shift: int
    bits: int

    @property
    def name(self) -> str:
        """Return the kernel's name of the level, PTE to PGD."""
        return LEVEL_NAMES[self.number]

    @property
    def span(self) -> int:
        """Return the bytes that one whole table of this level maps."""
        return 1 << (self.shift + self.bits)


class Era(NamedTuple):
    """What differs between kernels and machines of one architecture: probed, never assumed.

    ``physical_bits``: width of a physical address. ``max_pfn``: the last frame of RAM (None: only
    ``physical_bits`` bounds a frame). ``devices``: memory that is a device lies anywhere beside
    it, and processes map it as they map RAM. ``encryption``: entry bits that mark encrypted memory
    and are no part of an address. ``saved_dirty``, ``devmap``: entry bits with that meaning, 0 for
    none.
    """

    physical_bits: int = 52
    max_pfn: int | None = None
    devices: bool = False
    encryption: int = 0
    saved_dirty: int = 0
    devmap: int = 0
    swap: SwapTypes = SwapTypes()


class Arch(NamedTuple):
    """A paging format: data and a few array functions.

    To add an architecture: write ``arch/<name>.py`` with one Arch and name it in ARCHES. It needs

    - ``depths``: for each number of levels, the Levels from the top down. Give the top level only
      the bits of the user half.
    - functions of ``(arch, entry, level)`` on u64 arrays of entries of one level:
      ``none``: bool, the slot is empty. ``table``: bool, a non-empty entry names a table.
      ``reserved``: bool, an entry that is neither breaks the format.
      ``rights``: u32, what a table entry leaves of WRITE, USER and EXEC.
      ``decode``: (flags u32, pfn u64) of leaves; pfn is 0 if a software entry holds none.
    - ``address``: u64 bytes, the physical address of the table that a table entry names.
    - ``soft``: (type u64, offset u64) of a software entry, ``(arch, entry)``.
    - ``describe``: (name, value) pairs for one entry, an int, in words.
    - ``plain``: ``(arch)``, (bits set, bits clear) that at the PTE level only a present page with
      a normal struct page has (count_tables counts by it).
    """

    name: str
    page_shift: int
    depths: Mapping[int, tuple[Level, ...]]
    levels: tuple[Level, ...]
    none: Callable[[Arch, U64, Level], Bool]
    table: Callable[[Arch, U64, Level], Bool]
    reserved: Callable[[Arch, U64, Level], Bool]
    rights: Callable[[Arch, U64, Level], U32]
    decode: Callable[[Arch, U64, Level], tuple[U32, U64]]
    address: Callable[[Arch, U64], U64]
    soft: Callable[[Arch, U64], tuple[U64, U64]]
    describe: Callable[[Arch, int, Level], list[tuple[str, int | str]]]
    plain: Callable[[Arch], tuple[int, int]]
    era: Era = Era()

    def on(self, levels: int, era: Era) -> Arch:
        """Return this format as one kernel uses it, with that many levels."""
        if levels not in self.depths:
            known = ", ".join(map(str, self.depths))
            raise BadRequest(f"{self.name} has no {levels}-level page tables; give one of {known}")
        return self._replace(levels=self.depths[levels], era=era)

    @property
    def user_end(self) -> int:
        """Return the end of the addresses that the user half can map, bytes."""
        return self.levels[0].span

    @property
    def last_frame(self) -> int:
        """Return the largest frame number an entry can hold on this machine."""
        # the very last one is left out: a word of all ones is garbage, not a page
        return (1 << (self.era.physical_bits - self.page_shift)) - 2

    @property
    def last_ram_frame(self) -> int:
        """Return the largest frame number of RAM, where tables are, as far as it is known."""
        return self.last_frame if self.era.max_pfn is None else self.era.max_pfn

    @property
    def last_page_frame(self) -> int:
        """Return the largest frame number that an ordinary page can have."""
        return self.last_frame if self.era.devices else self.last_ram_frame
