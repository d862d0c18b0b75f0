"""What a paging format is: levels and entries, so that one walk serves every architecture."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self, TypeAlias

import numpy as np

from pagewalk.model.bits import Bit
from pagewalk.model.columns import U32, U64, Bool
from pagewalk.model.errors import BadRequest
from pagewalk.model.soft import SwapTypes

# An entry in words.
Said: TypeAlias = list[tuple[str, int | str]]

PTE, PMD, PUD, P4D, PGD = 1, 2, 3, 4, 5
LEVEL_NAMES = {PTE: "PTE", PMD: "PMD", PUD: "PUD", P4D: "P4D", PGD: "PGD"}


class Level(NamedTuple):
    """One level of tables: a table has ``1 << bits`` entries of ``1 << shift`` bytes each.

    ``number`` is as in Holes.level; a folded level is left out, so the top is always the PGD.
    """

    number: int
    shift: int
    bits: int

    @property
    def name(self) -> str:
        """Return the kernel's name for the level, PTE to PGD."""
        return LEVEL_NAMES[self.number]

    @property
    def span(self) -> int:
        """Return how many bytes one whole table of this level maps."""
        return 1 << (self.shift + self.bits)


class Era(NamedTuple):
    """What differs between kernels and machines of one architecture: probed, never assumed.

    ``release``: (major, minor); it decides what software bits mean, because no interface reports
    that, and distributions do not move the bits of an entry within a release. ``physical_bits``:
    width of a physical address. ``encryption``: entry bits that mark encrypted memory and are no
    part of an address. ``max_pfn``: the last frame of RAM (None: only ``physical_bits`` bounds a
    frame). ``devices``: there is device memory, anywhere outside RAM, and processes map it like
    RAM. ``swap``: what the types of software entries mean.
    """

    release: tuple[int, int]
    physical_bits: int
    encryption: int = 0
    max_pfn: int | None = None
    devices: bool = False
    swap: SwapTypes = SwapTypes()


@dataclass(frozen=True)
class Arch(ABC):
    """A paging format as one kernel uses it: its ``levels`` from the top down, and its ``era``.

    To add an architecture: write ``arch/<name>.py`` with a subclass of this and name it in ARCHES.
    Methods that take ``entry`` take u64[n], words of tables of one ``level``.
    """

    levels: tuple[Level, ...]
    era: Era

    name: ClassVar[str]
    page_shift: ClassVar[int]
    # The levels by how many there are; the top level has only the bits of the user half.
    depths: ClassVar[Mapping[int, tuple[Level, ...]]]
    # Every bit that ``describe`` may name, and what it means.
    legend: ClassVar[tuple[Bit, ...]]
    # The kernel maps all RAM at a base that is a multiple of direct_map_step, bytes; by the number
    # of levels, the most that it can map there.
    direct_map_step: ClassVar[int]
    direct_map_size: ClassVar[Mapping[int, int]]

    @classmethod
    def on(cls, levels: int, era: Era) -> Self:
        """Return this format as one kernel uses it, with that many levels."""
        if levels not in cls.depths:
            known = ", ".join(map(str, cls.depths))
            raise BadRequest(f"{cls.name} has no {levels}-level page tables; give one of {known}")
        return cls(cls.depths[levels], era)

    @classmethod
    @abstractmethod
    def era_of(cls, release: tuple[int, int], cpuinfo: bytes, swap: SwapTypes) -> Era:
        """Return the Era of a kernel by its release and /proc/cpuinfo (b"": unreadable)."""

    @staticmethod
    @abstractmethod
    def vm_flag_codes(release: tuple[int, int]) -> dict[int, str]:
        """Return the two letters that smaps prints for this architecture's own vm_flags bits."""

    @staticmethod
    @abstractmethod
    def protection_key(vm_flags: int) -> int:
        """Return the protection key in a VMA's vm_flags (vma_pkey)."""

    @abstractmethod
    def none(self, entry: U64, level: Level) -> Bool:
        """Return which slots are empty."""

    @abstractmethod
    def table(self, entry: U64, level: Level) -> Bool:
        """Return which of ``entry``, of a level above the PTE, name a table."""

    @abstractmethod
    def reserved(self, entry: U64, level: Level) -> Bool:
        """Return which of ``entry``, neither empty nor naming a table, break the format."""

    @abstractmethod
    def rights(self, entry: U64, level: Level) -> U32:
        """Return what entries that name tables leave of Flag.WRITE, USER and EXEC."""

    @abstractmethod
    def decode(self, entry: U64, level: Level) -> tuple[U32, U64]:
        """Return (flags u32, pfn u64) of leaves; pfn is 0 if a software entry holds none."""

    @abstractmethod
    def address(self, entry: U64) -> U64:
        """Return the physical address (u64, bytes) that entries of tables and small pages hold."""

    @abstractmethod
    def soft(self, entry: U64) -> tuple[U64, U64]:
        """Return (type u64, offset u64) of software entries."""

    @abstractmethod
    def plain(self) -> tuple[int, int]:
        """Return (bits set, bits clear) that at the PTE level only a present page with a normal
        struct page has; one bit is set."""

    @abstractmethod
    def describe(self, entry: int, level: Level) -> Said:
        """Return one entry, an int, in words: (name, value) pairs, the first of them "kind"."""

    def level(self, number: int) -> Level:
        """Return the level of that ``number``, which is not folded."""
        return next(level for level in self.levels if level.number == number)

    @property
    def user_end(self) -> int:
        """Return the end of the addresses that the user half can map, bytes."""
        return self.levels[0].span

    @property
    def frame_mask(self) -> int:
        """Return the bits of a small page's entry that are its frame."""
        return int(self.address(np.array([(1 << 64) - 1], np.uint64))[0])

    @property
    def last_frame(self) -> int:
        """Return the largest frame number an entry can hold on this machine."""
        # the last one is excluded: a word of all ones is garbage, not a page
        return (1 << (self.era.physical_bits - self.page_shift)) - 2

    @property
    def last_ram_frame(self) -> int:
        """Return the largest frame number of RAM, where tables are, as far as it is known."""
        return self.last_frame if self.era.max_pfn is None else self.era.max_pfn

    @property
    def last_page_frame(self) -> int:
        """Return the largest frame number that an ordinary page can have."""
        return self.last_frame if self.era.devices else self.last_ram_frame
