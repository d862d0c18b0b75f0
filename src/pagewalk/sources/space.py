"""What a source reads: one address space, whatever it is read from."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from pagewalk.model.columns import NO_SUMS, U64, Sums, Tells, VMAs
from pagewalk.model.facts import Facts
from pagewalk.pagetables.decode import NO_ENTRIES, Entries
from pagewalk.proc.frames import FrameReader


class Part(NamedTuple):
    """A part of what an address space adds up to: entries, and sums that need no second look.

    ``page_tables``: bytes of the PTE, PMD and PUD tables read, known at the end.
    """

    entries: Entries = NO_ENTRIES
    sums: Sums = NO_SUMS
    page_tables: int | None = None


class Space(Protocol):
    """One address space, whatever it is read from: a pagemap, page tables, columns in memory."""

    facts: Facts

    @property
    def tells(self) -> Tells:
        """Return what can be told of this address space."""

    @property
    def frames(self) -> FrameReader | None:
        """Return the open frame database, None where frames are withheld."""

    def entries(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Entries]:
        """Yield the entries of ``ranges`` (u64[k, 2], sorted, half open) of ``vmas``, in order.

        There are holes only where page tables are read. Without ``frames`` nobody is going to look
        at them, so the zero pages are marked here as far as possible.
        """

    def sums(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Part]:
        """Yield what ``entries`` does for callers that only need sums, in no order.

        Without ``frames`` leaves come as sums, without kinds.
        """
