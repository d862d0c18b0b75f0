"""Decide what is behind pages and how they count: ``rules`` applied to columns. Pure."""

from __future__ import annotations

import numpy as np

from pagewalk.model import rules
from pagewalk.model.bits import MAYBE_KSM, kpf
from pagewalk.model.columns import U8, U32, U64, Amounts, Bool, Flag, Pages, State
from pagewalk.model.rules import NOTHING, Bits, Rules, When

NO_FRAME = kpf("nopage")


def classify(flags: U32, backing: U8, kflags: U64 | None) -> U8:
    """Return the State (u8) of each leaf.

    ``flags`` u32 (Flag), ``backing`` u8 the VMA's (Backing), ``kflags`` u64 the folio head's
    /proc/kpageflags word, or None where frames are withheld: the kind then comes from bit 61 and
    the VMA. Pages of page tables, which have no such bit, and pages of a driver's VMA that may be
    special stay PRESENT.
    """
    return decide(rules.BY_VMA if kflags is None else rules.BY_FRAME, flags, backing, kflags)


def decide(table: Rules, flags: U32, backing: U8, kflags: U64 | None) -> U8:
    # The last rule first, so that the first that holds has the last word. A rule that no row can
    # fulfil is left out: of twenty few batches need five.
    some_have, all_have = np.bitwise_or.reduce(flags), np.bitwise_and.reduce(flags)
    some_frames = NOTHING.frame if kflags is None else np.bitwise_or.reduce(kflags)
    told = kflags is None or not untold(kflags).any()
    here = np.uint8(1) << backing
    state = np.full(len(flags), table[-1][0].value, np.uint8)
    for result, when in reversed(table[:-1]):
        some = when.some
        if when.none.entry & all_have or (when.silent and told):
            continue
        if some is not None and not (some.entry & some_have or some.frame & some_frames):
            continue
        where = holds(when, flags, kflags, all_have)
        if when.backing != rules.ANYWHERE:
            where &= here & when.backing != 0
        np.copyto(state, result.value, where=where)
    return state


def holds(
    when: When, flags: U32, kflags: U64 | None = None, known: np.uint32 = NOTHING.entry
) -> Bool:
    """Return a mask of the pages for which ``when`` holds, in whatever VMA they are.

    ``flags`` u32 (Flag) and ``kflags`` u64 are theirs, without ``kflags`` only the entry counts.
    All of them have the bits ``known`` in ``flags``.
    """
    some, none = when.some, when.none
    if some is None or some.entry & known:
        mask = np.ones(len(flags), np.bool_)
    else:
        mask = any_of(some, flags, kflags)
    if when.silent and kflags is not None:
        mask &= untold(kflags)
    if none.entry or none.frame:
        mask &= ~any_of(none, flags, kflags)
    return mask


def any_of(bits: Bits, flags: U32, kflags: U64 | None) -> Bool:
    if kflags is None or not bits.frame:
        mask: Bool = flags & bits.entry != 0
        return mask
    mask = kflags & bits.frame != 0
    return mask | (flags & bits.entry != 0) if bits.entry else mask


def hwpoison(flags: U32) -> Bool:
    """Return a mask of the entries for pages lost to a memory error.

    Some kernels' smaps counts such an entry as it did the page, others do not count it.
    """
    return holds(rules.HWPOISON, flags)


def has(kflags: U64, name: str) -> Bool:
    """Return a mask of the words with the kpageflags bit ``name``."""
    mask: Bool = kflags & kpf(name) != 0
    return mask


def untold(kflags: U64) -> Bool:
    """Return a mask of the frames that the frame database does not know."""
    mask: Bool = (kflags & ~NO_FRAME) == 0
    return mask


def shared(pages: Amounts | Pages, *, entries: bool) -> Bool:
    """Return a mask of the pages that smaps counts as shared.

    With ``entries`` the kernel takes migration and hwpoison entries for shared, whatever their
    page's mapcount (since 6.11).
    """
    assert pages.mapcount is not None
    mask: Bool = pages.mapcount >= 2
    if entries:
        mask |= (pages.state == State.MIGRATING.value) | hwpoison(pages.flags)
    return mask


def once(pages: Amounts | Pages) -> Bool:
    # Mapped once, by a page table that belongs only to this process.
    assert pages.mapcount is not None
    foreign = pages.state == State.HUGETLB.value
    foreign &= pages.flags & np.uint32(Flag.EXCLUSIVE.value) == 0
    mask: Bool = (pages.mapcount == 1) & ~foreign
    return mask


def inherited(pages: Amounts | Pages) -> Bool:
    # Anonymous and mapped by others too, yet by this process once: such a page has one address in
    # each address space (vma_address, mm/rmap.c, computes it from the index), unless KSM merged it.
    assert pages.mapcount is not None and pages.kflags is not None
    mask: Bool = (pages.state == State.ANON.value) & (pages.mapcount > 1)
    mask &= pages.kflags & MAYBE_KSM == 0
    return mask & ~holds(rules.KSM, pages.flags, pages.kflags)


def maybe_repeated(pages: Amounts | Pages) -> Bool:
    """Return a mask of the pages in RAM that this process may map more than once."""
    return rules.HELD[pages.state] & ~once(pages) & ~inherited(pages)
