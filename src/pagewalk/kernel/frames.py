"""The frame database, read from struct page itself: flags and mapcount of every page frame.

The results are those of /proc/kpageflags and /proc/kpagecount in a fraction of the time, and also
PG_young, which the kernel does not export. What the pages of a large folio share is taken from its
head, for tails too. ``verify`` compares with the kernel's own files, and has to be called before
relying on this: struct page changes with nearly every release.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pagewalk.kernel.programs.loops import FRAMES, TABLES
from pagewalk.kernel.readers.memory import PAGE, element_batches, read_pages
from pagewalk.kernel.structs import struct_page
from pagewalk.kernel.structs.direct_map import MemMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.page_layout import page_layout
from pagewalk.kernel.structs.struct_page import FrameMap, FrameRows, decode_words, tell_apart
from pagewalk.kernel.structs.zero import ZeroFrames
from pagewalk.model.bits import YOUNG, kpf
from pagewalk.model.columns import I32, I64, U64, Bool, alike
from pagewalk.model.errors import NotInBtf, SourceUnavailable
from pagewalk.model.rules import KEPT
from pagewalk.proc.frames import LARGE
from pagewalk.proc.zones import read_memory

if TYPE_CHECKING:
    from pagewalk.kernel.programs.condense_pages import Condenser
    from pagewalk.kernel.programs.loader import Shortcuts

_ATTEMPTS = 3
_PROVED = 8  # tables
_SAMPLE = 128


def open_frame_map(kernel: Kernel, mem_map: MemMap, zero: ZeroFrames) -> FrameMap:
    """Prepare to read struct pages; raises SourceUnavailable if BTF lacks something."""
    try:
        return FrameMap(kernel, mem_map, page_layout(kernel.btf), zero)
    except LookupError as error:
        what = error.missing if isinstance(error, NotInBtf) else error
        raise SourceUnavailable(
            "struct page", f"this kernel's BTF has no {what}", "use /proc/kpageflags"
        ) from error


def read_struct_pages(frames: FrameMap, pfns: U64) -> FrameRows:
    """Read one row per frame in ``pfns`` (u64[n], any order; ascending is fast).

    A folio that is split or freed while being read is read again, up to three times.
    """
    out = struct_page.blank_rows(len(pfns))
    for first, part in frame_batches(frames, pfns):
        struct_page.put_rows(out, slice(first, first + len(part.flags)), part)
    for _ in range(_ATTEMPTS - 1):
        again = np.flatnonzero(out.errno == errnos.EAGAIN)
        for first, part in frame_batches(frames, pfns[again]):
            struct_page.put_rows(out, again[first : first + len(part.flags)], part)
    failed = out.errno != 0
    if failed.any():
        out.flags[failed], out.mapcount[failed], out.young[failed] = 0, 0, False
    return out


def frame_batches(frames: FrameMap, pfns: U64) -> Iterator[tuple[int, FrameRows]]:
    """Read like read_struct_pages, but only once: yield (first row, rows) per batch.

    Here errno EAGAIN marks the pages of a folio that changed while being read.
    """
    base, size = frames.mem_map.base, frames.mem_map.size
    for first, pages, errno in element_batches(frames.kernel.memory, base, pfns, size):
        here = pfns[first : first + len(pages)]
        yield first, struct_page.decode_pages(frames, here, pages, errno)


class Runs(NamedTuple):
    """Runs of pages that do not differ in anything that accounting sums.

    ``table`` (i64) is the row of the run's table, ``pages`` (i64) its length; ``flags`` and
    ``mapcount`` (u64) are those of each page, see FrameReader.
    """

    table: I64
    pages: I64
    flags: U64
    mapcount: U64


class StructPages:
    """Frame flags and mapcounts from struct page; see proc.frames.FrameReader."""

    young = True
    ksm = True

    def __init__(self, frames: FrameMap, shortcuts: Shortcuts | None = None) -> None:
        self.frames, self._shortcuts = frames, shortcuts
        self._proved: bool | None = None
        self._tables_proved = False

    def read(self, pfns: U64, once: Bool) -> tuple[U64, U64]:
        """Return (flags, mapcount), see FrameReader; ``once`` saves nothing here."""
        del once
        condenser = self.pay_for_condenser(len(pfns))
        if condenser is None:
            rows = read_struct_pages(self.frames, pfns)
            return _frame_words(rows.flags, rows.mapcount, rows.young)
        flags, mapcount = np.empty(len(pfns), np.uint64), np.empty(len(pfns), np.uint64)
        zero = np.uint64(self.frames.zero.small)
        # Equal neighbours, which most are, are decoded once.
        for at in range(0, len(pfns), FRAMES):
            here = slice(at, at + FRAMES)
            words = condenser.of_frames(pfns[here])
            first = alike(words)
            some, pages = words[first], np.diff(first, append=len(words))
            for column, values in zip((flags, mapcount), self._decode(some), strict=True):
                same = (values == values[0]).all()
                column[here] = values[0] if same else np.repeat(values, pages)
            flags[here][pfns[here] == zero] |= kpf("zero_page")
            clear = tell_apart(self.frames.layout, some)
            if clear.all():
                continue
            left = at + np.flatnonzero(np.repeat(~clear, pages))
            rows = read_struct_pages(self.frames, pfns[left])
            flags[left], mapcount[left] = _frame_words(rows.flags, rows.mapcount, rows.young)
        return flags, mapcount

    def _decode(self, words: U64) -> tuple[U64, U64]:
        return _frame_words(*decode_words(self.frames.layout, words))

    def pay_for_condenser(self, pages: int) -> Condenser | None:
        """Return the condenser that ``runs`` needs, for ``pages`` more; None if the kernel refuses
        it, or if it does not pay yet.

        It is verified before its first use: on frames from all over RAM it must agree with
        read_struct_pages.
        """
        made = None if self._shortcuts is None else self._shortcuts.pay_for_condenser(pages)
        if made is not None and self._proved is None:
            self._proved = any(self._agrees(made) for _ in range(_ATTEMPTS))
        return made if self._proved else None

    def _agrees(self, condenser: Condenser) -> bool:
        pfns = sample()
        words = condenser.of_frames(pfns)
        clear = tell_apart(self.frames.layout, words)
        flags, mapcount = self._decode(words[clear])
        rows = read_struct_pages(self.frames, pfns[clear])
        known = (rows.errno == 0) & (pfns[clear] != np.uint64(self.frames.zero.small))
        flags = (flags ^ rows.flags) & ~np.uint64(YOUNG)
        wrong = (flags != 0) | (mapcount != rows.mapcount.astype(np.uint64))
        return bool(clear.any()) and not wrong[known].any()

    def runs(self, condenser: Condenser, addresses: U64) -> tuple[Runs, I64]:
        """Return (runs, pages) of the PTE tables at kernel ``addresses`` (u64[n], one or more).

        ``pages`` (i64[n]) is how many each table maps. It is -1, and there are no runs, if an entry
        is neither an ordinary page of RAM nor empty, or needs a closer look; and if all are empty,
        which is what unreadable memory looks like. It is -1 for all until the condenser has agreed
        with read_struct_pages on some of these tables.
        """
        if not self._tables_proved:
            some = addresses[:: -(-len(addresses) // _PROVED)]
            self._tables_proved = any(self._tables_agree(condenser, some) for _ in range(_ATTEMPTS))
        if not self._tables_proved:
            nothing = np.zeros(0, np.int64)
            none = Runs(nothing, nothing, *self._decode(nothing.view(np.uint64)))
            return none, np.full(len(addresses), -1, np.int64)
        parts, counts = [], []
        for first in range(0, len(addresses), TABLES):
            plain, words = condenser.of_tables(addresses[first : first + TABLES])
            table, length, word, pages = self._runs(plain, words)
            parts.append((first + table, length, word))
            counts.append(pages)
        table, length, word = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return Runs(table, length, *self._decode(word)), np.concatenate(counts)

    def _tables_agree(self, condenser: Condenser, addresses: U64) -> bool:
        # In everything that accounting needs of a page, and in which slots are empty.
        entries, errno = read_pages(self.frames.kernel.memory, addresses)
        entries = entries.copy()
        plain, words = condenser.of_tables(addresses)
        rows = plain & (errno == 0)
        entries, words = entries[rows].reshape(-1), words[rows].reshape(-1)
        filled = entries != 0
        if not filled.any() or not np.array_equal(filled, words != 0):
            return False
        arch = condenser.arch
        pfns = arch.address(entries[filled]) >> np.uint64(arch.page_shift)
        told = read_struct_pages(self.frames, pfns)
        clear = tell_apart(self.frames.layout, words[filled]) & (told.errno == 0)
        flags, mapcount = self._decode(words[filled])
        wrong = ((flags ^ told.flags) & KEPT != 0) | (mapcount != told.mapcount.astype(np.uint64))
        return bool(clear.any()) and not wrong[clear].any()

    def _runs(self, plain: Bool, words: U64) -> tuple[I64, I64, U64, I64]:
        # (table, length, word) of each run of pages, and the number of pages in each table, from
        # the result of of_tables.
        flat = words.reshape(-1)
        start = alike(flat, also=np.arange(0, len(flat), words.shape[1]))
        length, word = np.diff(start, append=len(flat)), flat[start]
        filled = word != 0
        start, length, word = start[filled], length[filled], word[filled]
        table = start // words.shape[1]
        _, mapcount = self._decode(word)  # 0: its page was moved; leave the table to a closer look
        plain[table[~tell_apart(self.frames.layout, word) | (mapcount == 0)]] = False
        pages = np.bincount(table, length, len(words)).astype(np.int64)
        pages[~plain | (pages == 0)] = -1
        clear = pages[table] >= 0
        return table[clear], length[clear], word[clear], pages

    def mapcounts(self, pfns: U64) -> U64:
        """Return the mapcounts; see FrameReader."""
        return read_struct_pages(self.frames, pfns).mapcount.astype(np.uint64)

    def marks(self, pfns: U64) -> U64:
        """Return the marks of large folios; see FrameReader."""
        return read_struct_pages(self.frames, pfns).flags & LARGE


def sample() -> U64:
    """Return _SAMPLE frames (u64, ascending) spread over all RAM, none if RAM's end is unknown."""
    last = (read_memory().ram_end or 0) // PAGE - 1
    return np.linspace(1, last, _SAMPLE if last > 0 else 0).astype(np.uint64)


def _frame_words(flags: U64, mapcount: I32, young: Bool) -> tuple[U64, U64]:
    # As FrameReader has them.
    return np.where(young, flags | YOUNG, flags), mapcount.astype(np.uint64)
