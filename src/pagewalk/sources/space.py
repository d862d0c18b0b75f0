"""What a source reads: one address space, whatever it is read from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from pagewalk.model.columns import NO_SUMS, U64, Sums, Tells, VMAs
from pagewalk.model.facts import Facts
from pagewalk.pagetables.decode import NO_ENTRIES, Entries
from pagewalk.proc.frames import FrameReader
from pagewalk.snapshot.runs import Runs


class Part(NamedTuple):
    """A part of what an address space adds up to: entries, and sums that need no second look."""

    entries: Entries = NO_ENTRIES
    sums: Sums = NO_SUMS


class Origin(NamedTuple):
    """Where and when something was recorded: the name of a host, nanoseconds since 1970."""

    host: str
    time: int


class Joined(ABC):
    """An address space whose pages come joined with their frames: what was recorded of one."""

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """Return where and when it was recorded."""

    @abstractmethod
    def runs(self) -> Iterator[Runs]:
        """Yield its pages as runs, by ascending address, with rows for what is not populated."""

    @property
    def frames(self) -> FrameReader | None:
        """Return no frame database: there is nothing to look up."""
        return None

    def entries(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Entries]:
        """Yield nothing: pages are not joined again."""
        del vmas, ranges, frames
        return iter(())

    def sums(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Part]:
        """Yield nothing: pages are not joined again."""
        del vmas, ranges, frames
        return iter(())


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
