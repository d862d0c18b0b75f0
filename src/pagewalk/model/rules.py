"""How a page counts: the one table to change for a kernel that counts differently.

A page is what three words say: its entry's flags (Flag), its frame's (/proc/kpageflags, of the
folio's head) and what its VMA maps (Backing). ``BY_FRAME`` and ``BY_VMA`` give it a State,
``STANDINGS`` says how a state counts, and the conditions at the end what else is counted of it.
The rules are those of fs/proc/task_mmu.c (smaps_pte_entry, smaps_account, vm_normal_page). The
masks of kpageflags bits that in-kernel programs keep and that are proved come from the rows.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pagewalk.model.bits import kpf
from pagewalk.model.columns import U8, Backing, Bool, Flag, Keeper, State


class Standing(NamedTuple):
    """How the pages in one state count.

    ``present``: a page-table entry maps them; ``rss``: in Rss; ``pss``: in Pss, each divided by
    its mapcount; ``held``: frames of RAM that the process holds, which ``keeper`` keeps there;
    ``entry``: there is an entry at all. Their sum is the column of the state's name, and the
    part mapped by huge leaves the column ``huge``. ``told`` is when these are known: "always", from
    page "tables" only, where "zero" pages can be recognised, or where the "kind" of each present
    page can; None where other columns have it.
    """

    present: bool = False
    rss: bool = False
    pss: bool = False
    held: bool = False
    keeper: Keeper = Keeper.MAPPINGS
    entry: bool = True
    told: str | None = "always"
    huge: str | None = None


_IN_RAM = Standing(present=True, rss=True, pss=True, held=True, told="kind")
STANDINGS = {
    State.ANON: _IN_RAM._replace(huge="anon_huge"),
    State.FILE: _IN_RAM._replace(keeper=Keeper.CACHE, huge="file_huge"),
    State.SHMEM: _IN_RAM._replace(keeper=Keeper.OBJECT, huge="shmem_huge"),
    State.ZERO: Standing(present=True, told="zero", huge="huge_zero"),
    State.SPECIAL: Standing(present=True, told="kind"),
    State.HUGETLB: Standing(present=True, held=True, keeper=Keeper.OBJECT),
    State.DEVICE: Standing(present=True, rss=True, pss=True),
    State.PRESENT: Standing(present=True, rss=True, told=None),
    State.EMPTY: Standing(entry=False, told="tables"),
    State.SWAPPED: Standing(told=None),
    State.MIGRATING: Standing(rss=True, pss=True, held=True),
    # smaps counts a page lost to a memory error in some kernels, and not in others: see hwpoison
    State.POISONED: Standing(),
    State.GUARD: Standing(),
    State.MARKER: Standing(),
    State.SOFT: Standing(told=None),
    State.NOT_MAPPED: Standing(entry=False, told="tables"),
    State.ABSENT: Standing(entry=False, told=None),
    State.DOUBT: Standing(),
}


class Bits(NamedTuple):
    """Bits of an entry's flags (Flag) and of its frame's (/proc/kpageflags)."""

    entry: np.uint32
    frame: np.uint64


def frame(*names: str) -> Bits:
    """Return the Bits that kpageflags calls ``names``."""
    return Bits(np.uint32(0), kpf(*names))


def bits(entry: Flag, *names: str) -> Bits:
    """Return the Bits ``entry`` and those that kpageflags calls ``names``."""
    return Bits(np.uint32(entry), kpf(*names))


def within(*backings: Backing) -> np.uint8:
    """Return ``1 << backing`` of all ``backings``, ORed."""
    return np.uint8(sum(1 << backing for backing in backings))


NOTHING = frame()
ANYWHERE = within(*Backing)


class When(NamedTuple):
    """What must hold for a page: one of the bits ``some`` is set, and none of ``none``.

    ``some`` is None where no bit is needed; ``backing`` are the kinds of VMA it may lie in (see
    within). With ``silent`` the frame database must not know its frame.
    """

    some: Bits | None = None
    none: Bits = NOTHING
    backing: np.uint8 = ANYWHERE
    silent: bool = False


Rules = tuple[tuple[State, When], ...]  # the first that holds decides


def _software(flag: Flag) -> When:
    return When(bits(flag), none=bits(Flag.PRESENT))


_SOFTWARE: Rules = (
    (State.GUARD, _software(Flag.GUARD)),
    (State.POISONED, _software(Flag.HWPOISON)),
    (State.MARKER, _software(Flag.MARKER)),
    (State.DEVICE, _software(Flag.DEVICE)),
    (State.MIGRATING, _software(Flag.MIGRATION)),
    (State.SWAPPED, _software(Flag.SWAP)),
    (State.SOFT, When(none=bits(Flag.PRESENT))),
)

# A normal page is anonymous, or has bit 61; up to 6.8 bit 61 is missing on PMD-mapped file THPs,
# which the large-folio bits give away. A real page table shows it by its special bit.
_NORMAL = bits(Flag.FILE | Flag.NORMAL, "head", "tail", "thp")

# The VMAs whose pages are what their frames say, unless their entry is special.
_ORDINARY = within(Backing.ANON, Backing.FILE, Backing.SHMEM)

BY_FRAME: Rules = (
    *_SOFTWARE,
    (State.ZERO, When(bits(Flag.ZERO, "zero_page"))),
    (State.HUGETLB, When(frame("huge"))),
    (State.ANON, When(frame("anon"))),
    (State.SPECIAL, When(bits(Flag.SPECIAL))),
    # Up to 6.14 entries of files and devices that are memory are special, and kpageflags knows no
    # such frames. (Bit 61 is wrong there: pagemap sets it for a PMD.) Anonymous memory that was
    # migrated to a device has ordinary entries.
    (State.SPECIAL, When(frame("nopage"), none=bits(Flag.NORMAL), backing=~within(Backing.ANON))),
    # What is left in anonymous memory, without bit 61, is anonymous, whatever its frame says: the
    # page was moved before its old frame was read, and that is free or in other use by now. Or the
    # frame database leaves the frame out, as some kernels do with RAM that they initialise late.
    (State.ANON, When(none=bits(Flag.FILE), backing=within(Backing.ANON))),
    (State.FILE, When(_NORMAL, backing=within(Backing.FILE), silent=True)),
    (State.SHMEM, When(_NORMAL, backing=within(Backing.SHMEM), silent=True)),
    (State.DEVICE, When(_NORMAL, silent=True)),
    (State.FILE, When(_NORMAL, none=frame("swapbacked"))),
    (State.SHMEM, When(_NORMAL)),
    # No driver maps into a file either, and bit 61 is clear: a private copy.
    (State.ANON, When(backing=within(Backing.FILE, Backing.SHMEM))),
    (State.SPECIAL, When()),
)  # fmt: skip

# Where frames are withheld, or not looked at: the kind comes from bit 61 and the VMA.
BY_VMA: Rules = (
    *_SOFTWARE,
    (State.ZERO, When(bits(Flag.ZERO))),
    (State.PRESENT, When(bits(Flag.MAYBE_ZERO))),
    (State.ZERO, When(bits(Flag.SPECIAL), backing=within(Backing.ANON))),
    (State.SPECIAL, When(bits(Flag.SPECIAL))),
    (State.HUGETLB, When(backing=within(Backing.HUGETLB))),
    # a real page table, where nothing says which kind
    (State.PRESENT, When(bits(Flag.NORMAL))),
    # A huge leaf with bit 61 in anonymous memory is the huge zero page (from 6.12 on). A small one
    # belongs to a file: one that is called /dev/zero is taken for anonymous memory.
    (State.FILE, When(bits(Flag.FILE), none=bits(Flag.HUGE), backing=within(Backing.ANON))),
    (State.ZERO, When(bits(Flag.FILE), backing=within(Backing.ANON))),
    (State.SHMEM, When(bits(Flag.FILE), backing=within(Backing.SHMEM))),
    (State.FILE, When(bits(Flag.FILE))),
    # special or anonymous: the entry does not say
    (State.PRESENT, When(backing=within(Backing.DRIVER))),
    (State.ANON, When()),
)

# What else is counted of a page of RAM, and from which bits. An entry on the move has none of its
# own left: it counts as clean.
_MOVING = bits(Flag.MIGRATION)
ANONYMOUS = When(frame("anon"))
KSM = When(frame("ksm"))
DIRTY = When(bits(Flag.DIRTY, "dirty"), none=_MOVING)
REFERENCED = When(bits(Flag.ACCESSED, "referenced", "young"), none=_MOVING)
# Anonymous, not swap-backed and not dirty, as smaps counts LazyFree.
LAZYFREE = When(frame("anon"), none=bits(Flag.MIGRATION | Flag.DIRTY, "swapbacked", "dirty"))
# Which the kernel does not reclaim: any process has locked it (mlock), or its file is in no other
# place (ramfs).
UNEVICTABLE = When(frame("unevictable", "mlocked"))
# An entry for a page lost to a memory error, and no marker that only says so (UFFDIO_POISON).
HWPOISON = When(bits(Flag.HWPOISON), none=bits(Flag.MARKER))

# What sums by VMA ask of a frame beside its state, and what only the fields of smaps do.
SUMMED = (ANONYMOUS, KSM)
DETAILED = (DIRTY, REFERENCED, LAZYFREE)


def frame_bits(rules: Iterable[When], entry: np.uint32) -> np.uint64:
    """Return the kpageflags bits that ``rules`` read of a page whose entry has flags ``entry``.

    A silent frame database is one that sets no bit at all, and is not counted here.
    """
    mask = np.uint64(0)
    for when in rules:
        some = when.some or NOTHING
        met = when.some is None or bool(some.entry & entry)
        if (met or some.frame) and not when.none.entry & entry:
            mask |= when.none.frame | (NOTHING if met else some).frame
    return mask


# What sums read of a frame behind an ordinary entry of a page table: an in-kernel program must keep
# it.
ORDINARY_ENTRY = np.uint32(Flag.PRESENT | Flag.NORMAL)
KEPT = frame_bits([*(when for _, when in BY_FRAME), *SUMMED], ORDINARY_ENTRY)


def _states(name: str) -> Bool:
    return np.array([getattr(STANDINGS[state], name) for state in State], np.bool_)


# Masks by State.
IS_PRESENT = _states("present")
IN_RSS = _states("rss")
IN_PSS = _states("pss")
HELD = _states("held")
HAS_ENTRY = _states("entry")
KEEPERS: U8 = np.array([STANDINGS[state].keeper for state in State], np.uint8)

# What is left of a state where only sizes are wanted, and nobody looks at bit 61.
SIZES: U8 = np.array(
    [State.PRESENT if s in (State.ANON, State.FILE, State.SHMEM) else s for s in State], np.uint8
)

# Whether the pages of a VMA are what their frames say, by Backing.
ORDINARY: Bool = _ORDINARY >> np.arange(len(Backing)) & 1 != 0

# The state of a hole, by Holes.level.
HOLE_STATES: U8 = np.full(6, State.NOT_MAPPED.value, np.uint8)
HOLE_STATES[:2] = State.ABSENT, State.EMPTY
