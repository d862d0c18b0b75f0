"""The frame database, on files that stand in for /proc/kpageflags and /proc/kpagecount."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from pagewalk.model.bits import KPF, MAYBE_KSM, kpf
from pagewalk.model.columns import U64
from pagewalk.proc.frames import (
    GAP,
    Frames,
    end_of,
    find_heads,
    folio_flags,
    merge,
    open_frames,
    read_kpage,
)
from tests.properties import always

COUNT = 3000
KSM = kpf("ksm")
HEAD, TAIL, ANON, DIRTY = (np.uint64(1 << KPF[n]) for n in ("head", "tail", "anon", "dirty"))


def array(*pfns: int) -> U64:
    return np.array(pfns, np.uint64)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return a descriptor of a file in which the word of frame n is 10 * n."""
    path = tmp_path_factory.mktemp("proc") / "kpageflags"
    (np.arange(COUNT, dtype=np.uint64) * np.uint64(10)).tofile(path)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


PFNS = st.lists(st.integers(0, COUNT + 200), max_size=60)


@always(PFNS)
def test_each_frame_gets_its_own_word_in_any_order(numbered: int, pfns: list[int]) -> None:
    found = read_kpage(numbered, array(*pfns))
    assert found.tolist() == [10 * n if n < COUNT else 0 for n in pfns]


@always(st.lists(st.tuples(st.integers(0, COUNT), st.integers(1, 90)), max_size=8))
def test_runs_are_read_like_single_frames(numbered: int, spans: list[tuple[int, int]]) -> None:
    pfns = [n for first, count in spans for n in range(first, first + count)]
    found = read_kpage(numbered, array(*pfns))
    assert found.tolist() == [10 * n if n < COUNT else 0 for n in pfns]


def test_a_frame_beyond_the_end_is_nopage_on_kernels_that_have_it(numbered: int) -> None:
    # The word of frame 0 in this file is 0, like that of RAM that the kernel initialises late.
    assert end_of(numbered) == COUNT
    pfns, once = array(0, COUNT - 1, COUNT, COUNT + 9), np.zeros(4, bool)
    nopage = 1 << KPF["nopage"]
    for tells, beyond in ((True, nopage), (False, 0)):
        flags, _ = Frames(numbered, numbered, nopage=tells).read(pfns, once)
        assert flags.tolist() == [0, 10 * (COUNT - 1), beyond, beyond]


def test_the_end_of_the_kernels_file_is_found() -> None:
    try:
        frames = open_frames()
    except OSError:
        pytest.skip("kpageflags is root's")
    last = end_of(frames.flags)
    assert len(os.pread(frames.flags, 16, 8 * (last - 1))) == 8
    frames.close()


def test_near_runs_are_one_read_and_far_ones_are_not() -> None:
    first, last = merge(array(5, 7 + GAP, 1000), array(7, 9 + GAP, 1001))
    assert (first.tolist(), last.tolist()) == ([5, 1000], [9 + GAP, 1001])
    first, _ = merge(array(5, 8 + GAP), array(7, 9 + GAP))
    assert first.tolist() == [5, 8 + GAP]


# ---- folios: 8 pages at 16, 2 at 32, an ordinary page at 40, 512 at 1024

HEADS = {16: 8, 32: 2, 1024: 512}


@pytest.fixture(scope="module")
def folios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, U64]]:
    """Return a descriptor and the words: a head has flags of its own, tails have only TAIL."""
    words = np.zeros(2048, np.uint64)
    words[40] = ANON
    for head, size in HEADS.items():
        words[head : head + size] = TAIL
        words[head] = HEAD | ANON | DIRTY
    words[900] = TAIL  # its folio was split between two reads: there is no head
    path = tmp_path_factory.mktemp("proc") / "kpageflags"
    words.tofile(path)
    fd = os.open(path, os.O_RDONLY)
    yield fd, words
    os.close(fd)


def test_a_tail_finds_its_own_head(folios: tuple[int, U64]) -> None:
    fd, words = folios
    tails = [n for head, size in HEADS.items() for n in range(head + 1, head + size)]
    owner = [head for head, size in HEADS.items() for _ in range(size - 1)]
    assert find_heads(fd, array(*tails)).tolist() == words[owner].tolist()


def test_a_tail_without_a_head_is_reported_without_one(folios: tuple[int, U64]) -> None:
    assert find_heads(folios[0], array(900)).tolist() == [0]


def test_tails_get_the_heads_flags_and_stay_tails(folios: tuple[int, U64]) -> None:
    fd, _ = folios
    pfns = array(40, 16, 17, 33, 1535, 900)
    found = folio_flags(fd, pfns)
    tail = int(TAIL | ANON | DIRTY)
    assert found.tolist() == [int(ANON), int(HEAD | ANON | DIRTY), tail, tail, tail, int(TAIL)]


# ---- both files


@pytest.fixture
def database(tmp_path: Path) -> Path:
    flags = np.zeros(64, np.uint64)
    flags[8], flags[9:12] = HEAD, TAIL
    flags.tofile(tmp_path / "kpageflags")
    (np.arange(64, dtype=np.uint64) + np.uint64(100)).tofile(tmp_path / "kpagecount")
    return tmp_path


def test_a_small_page_known_to_be_mapped_once_costs_no_read_of_its_count(database: Path) -> None:
    opened = open_frames(str(database))
    try:
        flags, counts = opened.read(array(3, 4, 8, 9), np.array([True, False, True, True]))
        # Bit 56 says "once" for frame 3. For a large folio it may be about the head only.
        assert counts.tolist() == [1, 104, 108, 109]
        assert flags.tolist() == [0, 0, int(HEAD), int(TAIL)]
        assert opened.mapcounts(array(5, 2)).tolist() == [105, 102]
    finally:
        opened.close()


def test_where_every_anonymous_page_is_marked_as_ksm_only_one_mapped_twice_may_be(
    tmp_path: Path
) -> None:
    # As 6.12 does; frame 3 is anonymous and mapped once, 4 twice, 5 is a file's, mapped twice.
    np.array([0, 0, 0, ANON | KSM, ANON | KSM, 0], np.uint64).tofile(tmp_path / "kpageflags")
    np.array([0, 0, 0, 1, 2, 2], np.uint64).tofile(tmp_path / "kpagecount")
    opened = open_frames(str(tmp_path), own=3)
    try:
        flags, _ = opened.read(array(3, 4, 5), np.zeros(3, bool))
        assert flags.tolist() == [int(ANON), int(ANON | MAYBE_KSM), 0]
    finally:
        opened.close()


@pytest.mark.parametrize("name", ["kpageflags", "kpagecount"])
def test_an_empty_file_hides_the_real_one(name: str, database: Path) -> None:
    (database / name).write_bytes(b"")
    with pytest.raises(OSError, match="it is empty: something else is mounted") as raised:
        open_frames(str(database))
    assert raised.value.errno == errno.ENODATA


@pytest.mark.parametrize("broken", ["kpageflags", "kpagecount"])
def test_failing_to_open_or_to_read_them_leaves_no_descriptor_open(
    broken: str, database: Path
) -> None:
    (database / broken).unlink()
    if broken == "kpageflags":
        (database / broken).mkdir()  # it can be opened, but not read
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):
        open_frames(str(database), own=3)
    assert os.listdir("/proc/self/fd") == before
