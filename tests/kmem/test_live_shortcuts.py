"""The programs that save copying, on tables laid out by hand in memory of our own."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest

from pagewalk.kmem.condenser import Condenser
from pagewalk.kmem.counter import TableCounter
from pagewalk.kmem.direct import find_casts
from pagewalk.kmem.directmap import DirectMap, MemMap, translate
from pagewalk.kmem.frames import StructPages, open_frame_map, read_frames
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.layout import page_layout
from pagewalk.kmem.machine import paging_format
from pagewalk.kmem.shortcuts import Shortcuts
from pagewalk.kmem.struct_page import FrameMap, decode_words, tell_apart
from pagewalk.kmem.task import find_task, read_mm
from pagewalk.kmem.zero import find_zero_frames
from pagewalk.pages import U64
from pagewalk.paging import Arch
from pagewalk.proc.kernel import release
from pagewalk.proc.zones import read_memory
from pagewalk.rules import KEPT
from tests.live.bracket import Seen, looking_again, settle
from tests.memory import DATA, PAGE, SLOTS

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(release() < (6, 4), reason="bpf_iter_num is missing before 6.4"),
]

FRAME = 0x1234  # a frame of RAM on every machine
SPECIAL = 1 << 9


class Laid:
    """Pages of ours that serve as page tables, and their addresses in the kernel.

    It may move them at any moment, to make room for a huge page: then a test looks again.
    """

    def __init__(self, kernel: Kernel, direct_map: DirectMap, count: int) -> None:
        self.area = mmap.mmap(-1, count * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.area.madvise(mmap.MADV_NOHUGEPAGE)
        self.words = np.frombuffer(self.area, np.uint64).reshape(count, SLOTS)
        for page in range(count):
            self.area[page * PAGE] = 0  # makes the kernel allocate a frame for it
        task = find_task(kernel, os.getpid())
        assert task.mm is not None
        pgd = read_mm(kernel, task.mm).pgd
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.area))
        phys = [
            translate(kernel, direct_map, pgd, start + page * PAGE)[0] for page in range(count)
        ]
        self.addresses: U64 = direct_map.addresses(np.array(phys, np.uint64))


@pytest.fixture(scope="module")
def arch(direct_map: DirectMap) -> Arch:
    return paging_format(direct_map)


@pytest.fixture(scope="module")
def counter(kernel: Kernel, arch: Arch) -> Iterator[TableCounter]:
    loaded = TableCounter(find_casts(kernel.btf), arch)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def condenser(kernel: Kernel, arch: Arch, mem_map: MemMap) -> Iterator[Condenser]:
    loaded = Condenser(find_casts(kernel.btf), arch, page_layout(kernel.btf), mem_map)
    yield loaded
    loaded.close()


@looking_again
def test_pages_of_whole_tables_are_counted(
    kernel: Kernel, direct_map: DirectMap, counter: TableCounter
) -> None:
    past_ram = read_memory().ram_end // PAGE
    page = FRAME * PAGE | DATA
    laid = Laid(kernel, direct_map, 9)
    tables = laid.words
    tables[0] = page  # 512 pages
    tables[1, ::2] = page  # 256 pages and 256 empty slots
    tables[2, 511] = page  # the last slot alone
    tables[3] = 0  # nothing, like memory that cannot be read
    tables[4], tables[4, 7] = page, page | SPECIAL
    tables[5], tables[5, 300] = page, past_ram * PAGE | DATA
    tables[6], tables[6, 0] = page, (past_ram - 1) * PAGE | DATA  # the last frame of RAM
    tables[7], tables[7, 511] = page, 0x8000_0000_03B3_4000 & ~1  # a swap entry
    tables[8] = (1 << 64) - 1  # freed and reused for something else
    assert counter.count(laid.addresses).tolist() == [512, 256, 1, -1, -1, -1, 512, -1, -1]


@looking_again
def test_more_tables_than_fit_in_one_run(
    kernel: Kernel, direct_map: DirectMap, counter: TableCounter
) -> None:
    laid = Laid(kernel, direct_map, 2)
    laid.words[0, :100], laid.words[1, :7] = FRAME * PAGE | DATA, FRAME * PAGE | DATA
    many = np.tile(laid.addresses, 300)
    assert counter.count(many).tolist() == [100, 7] * 300
    assert counter.count(many[:0]).tolist() == []


def test_unmapped_memory_is_not_a_table(counter: TableCounter) -> None:
    # a user address, and a kernel address where nothing is mapped: loads return 0
    nowhere = np.array([0x1000, 0xFFFF_8000_0000_0000 - PAGE], np.uint64)
    assert counter.count(nowhere).tolist() == [-1, -1]


def own_frames(laid: Laid, direct_map: DirectMap) -> U64:
    frames: U64 = (laid.addresses - np.uint64(direct_map.base)) >> np.uint64(12)
    return frames


@looking_again
def test_a_frames_word_says_what_its_struct_page_says(
    kernel: Kernel, direct_map: DirectMap, frames: FrameMap, condenser: Condenser
) -> None:
    laid = Laid(kernel, direct_map, 20)  # 20 frames, not a multiple of the frames per step
    pfns = own_frames(laid, direct_map)
    words = condenser.of_frames(pfns)
    assert len(words) == 20
    assert tell_apart(frames.layout, words).all()
    flags, mapcount, young = decode_words(frames.layout, words)
    rows = read_frames(frames, pfns)
    assert mapcount.tolist() == rows.mapcount.tolist() == [1] * 20
    assert flags.tolist() == rows.flags.tolist()
    assert young.tolist() == rows.young.tolist()


@looking_again
def test_words_of_tables_are_at_the_positions_of_the_entries(
    kernel: Kernel, direct_map: DirectMap, frames: FrameMap, condenser: Condenser
) -> None:
    laid = Laid(kernel, direct_map, 3)
    pfn = int(own_frames(laid, direct_map)[2])
    laid.words[0, [0, 511]] = pfn * PAGE | DATA
    laid.words[1, 8] = pfn * PAGE | DATA
    laid.words[2, 0] = SPECIAL | DATA
    plain, words = condenser.of_tables(laid.addresses)
    assert plain.tolist() == [True, True, False]
    words = words[:2]
    found = np.argwhere(words != 0).tolist()
    assert found == [[0, 0], [0, 511], [1, 8]]
    flags, mapcount, _ = decode_words(frames.layout, words[words != 0])
    assert mapcount.tolist() == [1] * 3
    (told,) = read_frames(frames, np.array([pfn], np.uint64)).flags
    assert (flags & KEPT).tolist() == [told & KEPT] * 3
    assert told & KEPT  # anonymous, and more


def test_frames_without_a_word_are_read_as_before(
    kernel: Kernel, direct_map: DirectMap, mem_map: MemMap, arch: Arch
) -> None:
    # Frames from all over RAM, including large folios and frames that were never initialised: the
    # reader that condenses and the one that does not must agree wherever nothing moves.
    zero = find_zero_frames(kernel, direct_map)
    frames = open_frame_map(kernel, mem_map, zero)
    quick = StructPages(frames, Shortcuts(kernel.btf, arch, frames.layout, mem_map))
    plain = StructPages(frames)
    assert quick.condenser_for(1 << 30) is not None
    assert plain.condenser_for(1 << 30) is None
    pfns = np.linspace(1, read_memory().ram_end // PAGE - 1, 1 << 16).astype(np.uint64)
    pfns[100] = zero.small

    def look() -> Seen[int]:
        nonlocal pfns
        once = np.zeros(len(pfns), bool)
        before, found, after = (frames.read(pfns, once) for frames in (plain, quick, plain))
        moved = (before[0] != after[0]) | (before[1] != after[1])
        differ = ~moved & ((found[0] != after[0]) | (found[1] != after[1]))
        how = {int(pfns[row]): (found[0][row], after[0][row], found[1][row], after[1][row])
               for row in np.flatnonzero(differ)}
        seen: Seen[int] = Seen(how, set(pfns[moved].tolist()))
        pfns = pfns[moved | differ]
        return seen

    assert settle(look) == {}
