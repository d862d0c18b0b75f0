"""pagemap words, and how a scan continues after a call that did not cover everything."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pagewalk.model.columns import U64, Flag
from pagewalk.proc.pagemap import PAGE, REGIONS, Pagemap, flags_of, resume
from pagewalk.proc.stall import Slice, Stall


def flags(*words: int) -> list[Flag]:
    return [Flag(f) for f in flags_of(np.array(words, np.uint64)).tolist()]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        # Recorded on 6.18: userfaultfd write-protection, poison, and guard markers, type 31.
        (0x420000000000003F, Flag.SOFT | Flag.UFFD_WP),
        (0x400000000000005F, Flag.SOFT),
        (0x440000000000009F, Flag.SOFT | Flag.GUARD),
        # Documentation/admin-guide/mm/pagemap.rst, bit by bit.
        (0, Flag(0)),
        (1 << 55, Flag.SOFT_DIRTY),
        (1 << 63 | 1 << 56 | 0x3B34, Flag.PRESENT | Flag.EXCLUSIVE),
        (1 << 63 | 1 << 61 | 0x3B34, Flag.PRESENT | Flag.FILE),
        (1 << 62, Flag.SOFT),  # what an ordinary user sees of any swap entry
        (1 << 59 | 1 << 60, Flag(0)),  # reserved: zero today
        ((1 << 55) - 1, Flag(0)),  # the bits of the frame are not flags
    ],
)
def test_bits_55_to_63_are_flags(word: int, expected: Flag) -> None:
    assert flags(word) == [expected]


def test_each_word_is_decoded_independently() -> None:
    assert flags(1 << 63, 0, 1 << 62) == [Flag.PRESENT, Flag(0), Flag.SOFT]


# ---- resume


def regions(*spans: tuple[int, int]) -> U64:
    """Return scanned regions of (first page, last page + 1)."""
    return np.array([(a * PAGE, b * PAGE, 0) for a, b in spans], np.uint64).reshape(-1, 3)


def singles(count: int, first: int = 0) -> U64:
    return regions(*((first + 2 * n, first + 2 * n + 1) for n in range(count)))


STOP = 10_000 * PAGE


@pytest.mark.parametrize(
    ("vec", "walk_end", "vec_len", "max_pages", "expected"),
    [
        # Nothing found: everything was looked at.
        (regions(), STOP, 512, 1 << 16, STOP),
        (regions(), 0, 512, 1 << 16, STOP),
        # Room left in the vector and in max_pages: complete, whatever walk_end is.
        (singles(511), STOP, 512, 1 << 16, STOP),
        # The kernel's bug: 513 regions in a vector of 1024; walk_end stays where the second pass
        # began, at region 512, and a naive scan would count that region twice.
        (singles(513), 2 * 512 * PAGE, 1024, 1 << 16, STOP),
        (singles(1020), 2 * 512 * PAGE, 1024, 1 << 16, STOP),
        # The vector is full: continue after its last region, or where the kernel stopped if later.
        (singles(512), (2 * 512 + 40) * PAGE, 512, 1 << 16, (2 * 512 + 40) * PAGE),
        (singles(1024), 2 * 512 * PAGE, 1024, 1 << 16, (2 * 1023 + 1) * PAGE),
        (singles(512), STOP, 512, 1 << 16, STOP),
        # max_pages is reached: the kernel stops at the first page that did not fit.
        (regions((0, 8)), 8 * PAGE, 512, 8, 8 * PAGE),
        (regions((0, 8)), 90 * PAGE, 512, 8, 90 * PAGE),
        (regions((0, 8)), 0, 512, 8, 8 * PAGE),
        (regions((0, 9)), 9 * PAGE, 512, 8, 9 * PAGE),  # a huge page may go beyond
        # Never past the requested end.
        (regions((0, 8)), STOP + PAGE, 512, 8, STOP),
    ],
)
def test_where_a_scan_continues(
    vec: U64, walk_end: int, vec_len: int, max_pages: int, expected: int
) -> None:
    assert resume(vec, len(vec), walk_end, STOP, vec_len, max_pages) == expected


def scan_like_the_kernel(
    pages: list[int], start: int, stop: int, vec_len: int
) -> tuple[U64, int]:
    """Return (regions, walk_end) as pagemap_scan_walk of 6.8 to 6.19 does, bug included.

    Regions are gathered in a buffer of 512. When it fills, the pass ends at the region that did
    not fit and walk_end is set there; at the normal end walk_end is set only if it is still 0.
    """
    found: list[int] = []
    walk_end = 0
    at = start
    while True:
        room = min(REGIONS, vec_len - len(found))
        ahead = [n for n in pages if at <= n * PAGE < stop]
        found += ahead[:room]
        if len(ahead) <= room:
            walk_end = walk_end or stop
            break
        at = walk_end = ahead[room] * PAGE
        if len(found) == vec_len:
            break
    return regions(*((n, n + 1) for n in found)), walk_end


@pytest.mark.parametrize("vec_len", [1, 511, 512, 513, 1024, 4096, 65536])
@pytest.mark.parametrize("count", [1, 511, 512, 513, 1025, 2048])
def test_every_region_is_seen_once(count: int, vec_len: int) -> None:
    pages = list(range(3, 3 + 2 * count, 2))
    if vec_len == 1 and count > 600:
        pages = pages[:600]  # one call per region, and each call of the model is slow
    stop = (pages[-1] + 5) * PAGE
    seen: list[int] = []
    start = 0
    while start < stop:
        vec, walk_end = scan_like_the_kernel(pages, start, stop, vec_len)
        seen += (vec[:, 0] // np.uint64(PAGE)).tolist()
        start = resume(vec, len(vec), walk_end, stop, vec_len, 1 << 62)
    assert seen == pages


def test_the_model_of_the_kernel_has_the_bug() -> None:
    # Recorded on 6.18: with 512 regions walk_end is the end, with 513 and 1020 it is region 512.
    ends = [scan_like_the_kernel(list(range(0, 2 * n, 2)), 0, STOP, 4096)[1] for n in (512, 513)]
    assert ends == [STOP, 1024 * PAGE]


# ---- reading


def test_words_read_in_slices_end_up_in_the_right_places(tmp_path: Path) -> None:
    words = np.arange(5000, dtype=np.uint64)
    path = tmp_path / "pagemap"
    words.tofile(path)
    out = np.zeros(3000, np.uint64)
    stall = Stall()
    fd = os.open(path, os.O_RDONLY)
    try:
        Pagemap(fd, 1, stall).read(1000 * PAGE, out, Slice(256, 64, 512))
    finally:
        os.close(fd)
    assert out.tolist() == list(range(1000, 4000))
    assert stall.reads >= 3000 // 512
