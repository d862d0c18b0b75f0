"""The columns that flow from a source to a view: VMAs, Leaves, Holes, Pages, Sums.

Every class is a frozen dataclass of numpy arrays of one length. Addresses and sizes are bytes,
ranges are half open. A column that is ``None`` was not read or was withheld; zero is a
measurement.
"""

from collections.abc import Iterable
from dataclasses import FrozenInstanceError, dataclass
from enum import IntEnum, IntFlag
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar, dataclass_transform

import numpy as np
import numpy.typing as npt

U8: TypeAlias = npt.NDArray[np.uint8]
I32: TypeAlias = npt.NDArray[np.int32]
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]
I64: TypeAlias = npt.NDArray[np.int64]
F64: TypeAlias = npt.NDArray[np.float64]
Bool: TypeAlias = npt.NDArray[np.bool_]


class State(IntEnum):
    """What stands behind a page; every page of every VMA is in exactly one.

    ``PRESENT``, ``SOFT`` and ``ABSENT`` say that the source could not tell the finer kinds apart:
    a present page of withheld kind, a software entry of withheld kind, and a page that is either
    ``EMPTY`` or ``NOT_MAPPED``. ``DOUBT`` is an entry that no kernel writes: a torn read that did
    not settle, or a broken table.
    """

    ANON = 0
    FILE = 1
    SHMEM = 2
    ZERO = 3
    SPECIAL = 4
    HUGETLB = 5
    DEVICE = 6
    PRESENT = 7
    EMPTY = 8
    SWAPPED = 9
    MIGRATING = 10
    POISONED = 11
    GUARD = 12
    MARKER = 13
    SOFT = 14
    NOT_MAPPED = 15
    ABSENT = 16
    DOUBT = 17

    @property
    def label(self) -> str:
        """Return the word the views print."""
        return self.name.lower()


class Flag(IntFlag):
    """What a leaf entry says, whatever the source's own encoding (Leaves.flags, u32)."""

    PRESENT = 1 << 0
    SOFT = 1 << 1  # not present, not empty: swap or any other software entry
    FILE = 1 << 2  # pagemap bit 61: a normal page that is not anonymous
    EXCLUSIVE = 1 << 3  # pagemap bit 56
    SOFT_DIRTY = 1 << 4
    UFFD_WP = 1 << 5
    GUARD = 1 << 6
    HUGE = 1 << 7  # mapped by a PMD or PUD leaf
    ZERO = 1 << 8  # known to be the shared zero page or huge zero page
    SWAP = 1 << 9
    MIGRATION = 1 << 10
    DEVICE = 1 << 11  # device-private or device-exclusive entry
    HWPOISON = 1 << 12
    MARKER = 1 << 13
    SPECIAL = 1 << 14  # no normal struct page behind it
    WRITE = 1 << 15
    USER = 1 << 16
    EXEC = 1 << 17
    ACCESSED = 1 << 18
    DIRTY = 1 << 19
    PROT_NONE = 1 << 20
    NORMAL = 1 << 21  # read from a real page table: not SPECIAL, so a normal struct page
    MAYBE_ZERO = 1 << 22  # anonymous or the huge zero page: this kernel does not say which


# Flags of the entry, by the names that the views print.
ENTRY_FLAGS = {
    "pmd": Flag.HUGE,
    "exclusive": Flag.EXCLUSIVE,
    "soft_dirty": Flag.SOFT_DIRTY,
    "uffd_wp": Flag.UFFD_WP,
    "write": Flag.WRITE,
    "exec": Flag.EXEC,
    "accessed": Flag.ACCESSED,
    "pte_dirty": Flag.DIRTY,
    "prot_none": Flag.PROT_NONE,
}


@dataclass_transform(eq_default=False, frozen_default=True)
class Rows:
    """Columns of one length, a numpy array each: what the classes below have in common.

    Each is a frozen dataclass; ``names`` are those of its columns, in order, ``words`` what the
    numbers in some of them stand for. Its methods are here
    once: ``dataclass`` would compile them for each, a seventh of the time that importing pagewalk
    takes.
    """

    names: ClassVar[tuple[str, ...]]
    words: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init_subclass__(cls) -> None:
        dataclass(init=False, repr=False, eq=False)(cls)
        cls.names = tuple(cls.__annotations__)

    def __init__(self, *columns: Any, **named: Any) -> None:
        names = self.names
        given = dict(zip(names, columns, strict=False)) | named
        if len(given) != len(columns) + len(named) or not given.keys() <= set(names):
            raise TypeError(f"{type(self).__name__} has the columns {', '.join(names)}")
        # a default is an attribute of the class; without one, a missing column is an AttributeError
        vars(self).update((n, given[n] if n in given else getattr(type(self), n)) for n in names)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({vars(self)})"

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return the columns as an Arrow stream of one batch; raises PackageMissing."""
        from pagewalk.model.arrow import batch_of, schema_of, stream

        return stream(schema_of(type(self)), [batch_of(self)], requested_schema)

    def __len__(self) -> int:
        for column in vars(self).values():
            return len(column)
        return 0


class VMAs(Rows):
    """The virtual memory areas of one address space, by ascending address.

    ``start``, ``end``, ``offset`` u64 bytes; ``perms`` u8, bits r 1, w 2, x 4, s 8 (shared);
    ``dev`` u64 (major << 32 | minor) and ``inode`` u64, 0 without a file; ``backing`` u8
    (see Backing); ``name`` the path, ``[heap]``, or an empty string, as the kernel gives it;
    ``flags`` u64 vm_flags, None where the source cannot read them.
    Source: Documentation/filesystems/proc.rst, /proc/PID/maps.
    """

    start: U64
    end: U64
    perms: U8
    offset: U64
    dev: U64
    inode: U64
    backing: U8
    name: tuple[str, ...]
    flags: U64 | None = None

    @cached_property
    def ranges(self) -> U64:
        """Return u64[n, 2], each VMA's [start, end)."""
        return np.stack([self.start, self.end], axis=1)

    @property
    def size(self) -> U64:
        """Return each VMA's length, u64 bytes."""
        return self.end - self.start

    @property
    def gate(self) -> Bool:
        """Return a mask of the gate VMAs."""
        gate: Bool = self.backing == Backing.GATE.value
        return gate

    @property
    def of_objects(self) -> Bool:
        """Return a mask of the VMAs of shmem and hugetlb objects."""
        shmem, hugetlb = (self.backing == kind.value for kind in (Backing.SHMEM, Backing.HUGETLB))
        mask: Bool = shmem | hugetlb
        return mask

    @property
    def hidden(self) -> Bool:
        """Return a mask of the VMAs that pagemap does not show: PFN maps and the gate VMA."""
        hidden: Bool = self.gate | (self.backing == Backing.HIDDEN.value)
        return hidden


READ, WRITE, EXEC, SHARED = 1, 2, 4, 8


def perms_text(perms: int) -> str:
    """Return a VMA's ``perms`` as maps prints them, ``rwxp``."""
    letters = (c if perms & bit else "-" for bit, c in ((READ, "r"), (WRITE, "w"), (EXEC, "x")))
    return "".join(letters) + ("s" if perms & SHARED else "p")


class Backing(IntEnum):
    """What a VMA maps (VMAs.backing)."""

    ANON = 0
    FILE = 1
    SHMEM = 2  # memfd, tmpfs, SysV, shared anonymous memory
    HUGETLB = 3
    DRIVER = 4  # a character device or an anonymous inode: the driver chooses the pages
    KERNEL = 5  # [vdso] and its like
    HIDDEN = 6  # a PFN map: pagemap and smaps show nothing of it
    GATE = 7  # listed in maps and smaps, but no VMA of this address space


class Leaves(Rows):
    """Entries that end a walk: one row a populated PTE or huge leaf, by ascending address.

    ``addr`` u64 first byte; ``shift`` u8, the leaf covers ``1 << shift`` bytes; ``entry`` u64 the
    source's raw word (a pagemap word, or the page-table entry); ``flags`` u32 (see Flag);
    ``pfn`` u64, the frame of a present leaf (else the payload's PFN or 0), or ``None`` where
    frames are withheld. Count bytes, never rows.
    """

    addr: U64
    shift: U8
    entry: U64
    flags: U32
    pfn: U64 | None

    @property
    def size(self) -> U64:
        """Return the bytes each leaf covers, u64."""
        return np.uint64(1) << self.shift.astype(np.uint64)


class Holes(Rows):
    """Ranges in which the walk ended above a PTE, by ascending address.

    ``addr`` u64 first byte, ``size`` u64 bytes, ``level`` u8: the level whose entry was none
    (1 PTE, 2 PMD, 3 PUD, 4 P4D, 5 PGD). At level 1 a page table exists and the slots are empty;
    level 0 is what the source does not look at.
    """

    addr: U64
    size: U64
    level: U8


class Pages(Rows):
    """Entries joined with their VMA and their frame: one batch of a walk, by ascending address.

    ``addr`` u64; ``size`` u64 bytes; ``vma`` i64 row of the walk's VMAs; ``state`` u8 (State);
    ``level`` u8, of a hole or a malformed entry the level it is at (see Holes), else 0; ``flags``
    u32 (Flag); ``entry`` u64; ``pfn`` u64 first frame, ``kflags`` u64 (/proc/kpageflags, of the
    folio's head) and ``mapcount`` u64 (of every base page of the row), or ``None`` where frames are
    withheld. A huge leaf is one row, unless its base pages have different mapcounts.
    """

    addr: U64
    size: U64
    vma: I64
    state: U8
    level: U8
    flags: U32
    entry: U64
    pfn: U64 | None
    kflags: U64 | None
    mapcount: U64 | None


class Amounts(Rows):
    """Bytes by VMA and state, for callers that need no single page.

    ``vma`` i64 row of the walk's VMAs; ``state`` u8 (State); ``level`` u8 as in Pages; ``flags``
    u32, as much of Flag as accounting needs; ``size`` u64 bytes, all of them inside that VMA.
    ``kflags`` and ``mapcount`` u64 as in Pages, of every page of the row, or ``None`` where frames
    were not read. Rows may repeat one another.
    """

    vma: I64
    state: U8
    level: U8
    flags: U32
    size: U64
    kflags: U64 | None = None
    mapcount: U64 | None = None


class Keeper(IntEnum):
    """What keeps a page in RAM (Shared.keeper)."""

    CACHE = 0  # the page cache: the page stays when nobody maps it
    MAPPINGS = 1  # nothing but its mappings: anonymous memory
    OBJECT = 2  # the shmem or hugetlb object that it belongs to


# For programs that do not know our enums.
Rows.words = {name: tuple(one.name.lower() for one in enum) for name, enum in (
    ("state", State), ("backing", Backing), ("keeper", Keeper))}


class Shared(Rows):
    """Pages in RAM that may be mapped more than once: a row for each mapping by this process.

    ``vma`` i64 row of the walk's VMAs; ``pfn`` u64 first frame and ``size`` u64 bytes of the page;
    ``mapcount`` u64 as in Pages; ``keeper`` u8 (see Keeper).
    """

    vma: I64
    pfn: U64
    size: U64
    mapcount: U64
    keeper: U8


_NO_ROWS, _NO_BYTES = np.zeros(0, np.int64), np.zeros(0, np.uint8)
_NO_FLAGS, _NO_WORDS = np.zeros(0, np.uint32), np.zeros(0, np.uint64)
NO_AMOUNTS = Amounts(_NO_ROWS, _NO_BYTES, _NO_BYTES, _NO_FLAGS, _NO_WORDS)
NO_SHARED = Shared(_NO_ROWS, _NO_WORDS, _NO_WORDS, _NO_WORDS, _NO_BYTES)


class Sums(NamedTuple):
    """A part of what a walk adds up to, in no order.

    ``shared`` are the pages of ``amounts`` that this process may map more than once, again.
    """

    amounts: Amounts = NO_AMOUNTS
    shared: Shared = NO_SHARED


NO_SUMS = Sums()


class Tells(NamedTuple):
    """What a walk can tell; the rest is withheld.

    ``tables``: page tables are read, so a hole has its level and an entry all its bits. ``huge``:
    leaves mapped by a PMD or PUD carry Flag.HUGE. ``zeros``: the zero page can be told from an
    anonymous page. ``frames``: flags and mapcounts of page frames, and among them ``young`` (see
    bits.YOUNG) and ``ksm`` pages.
    """

    tables: bool
    huge: bool
    zeros: bool
    frames: bool
    young: bool
    ksm: bool


class Withheld(NamedTuple):
    """Something a walk does not tell, and why.

    ``what`` names the columns; ``why`` is a sentence with the remedy. ``partial`` says that this
    source could have given it, had rights or a race not taken it away (exit code 3); a limit of
    the source itself is not partial.
    """

    what: str
    why: str
    partial: bool = False


def partial(withheld: Iterable[Withheld]) -> list[str]:
    """Return what of ``withheld`` rights or a race took away, a sentence each."""
    return [f"{row.what}: {row.why}" for row in withheld if row.partial]


Columns = TypeVar("Columns", bound=Rows)


def take(columns: Columns, rows: Bool | I64 | slice) -> Columns:
    """Return the same columns at ``rows`` (a mask, positions, or a slice)."""
    kind: Any = type(columns)
    picked: list[Any] = [
        None if (c := getattr(columns, name)) is None else c[rows] for name in columns.names
    ]
    taken: Columns = kind(*picked)
    return taken


def alike(*columns: npt.NDArray[Any] | None, also: I64 | None = None) -> I64:
    """Return the first row of each run of rows that agree in all ``columns``; None is no column.

    A run also ends before each row of ``also`` (one past the last is allowed).

    Neighbouring pages mostly look alike: what a run decides need not be decided page by page.
    """
    given = [column for column in columns if column is not None]
    new = np.empty(len(given[0]), bool)
    new[:1] = True
    np.not_equal(given[0][1:], given[0][:-1], out=new[1:])
    for column in given[1:]:
        new[1:] |= column[1:] != column[:-1]
    if also is not None:
        new[also[also < len(new)]] = True
    return np.flatnonzero(new)


def join(parts: list[Columns]) -> Columns:
    """Return the rows of all ``parts`` (one or more), in order; a column None in one is None."""
    first = parts[0]
    if len(parts) == 1:
        return first
    kind: Any = type(first)
    columns: dict[str, Any] = {}
    for name in first.names:
        arrays = [getattr(p, name) for p in parts]
        columns[name] = None if any(a is None for a in arrays) else np.concatenate(arrays)
    joined: Columns = kind(**columns)
    return joined
