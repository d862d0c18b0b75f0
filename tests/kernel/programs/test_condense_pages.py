"""The program that condenses struct pages to words, on tables laid out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pagewalk.kernel.frames import StructPages, read_struct_pages
from pagewalk.kernel.programs.condense_pages import Condenser
from pagewalk.kernel.programs.loops import find_casts
from pagewalk.kernel.structs.direct_map import DirectMap, MemMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.page_layout import COUNT_SHIFT, page_layout
from pagewalk.kernel.structs.struct_page import FrameMap, decode_words, tell_apart
from pagewalk.model.columns import U64
from pagewalk.model.rules import KEPT
from pagewalk.pagetables.format import Arch
from tests.kernel.laid import SPECIAL, Laid
from tests.kernel.loops import needs_loops
from tests.live.bracket import looking_again
from tests.memory import DATA, PAGE

pytestmark = [
    pytest.mark.live,
    needs_loops,
]

@pytest.fixture(scope="module")
def condenser(kernel: Kernel, arch: Arch, mem_map: MemMap) -> Iterator[Condenser]:
    loaded = Condenser(find_casts(kernel.btf), arch, page_layout(kernel.btf), mem_map)
    yield loaded
    loaded.close()


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
    rows = read_struct_pages(frames, pfns)
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
    (told,) = read_struct_pages(frames, np.array([pfn], np.uint64)).flags
    assert (flags & KEPT).tolist() == [told & KEPT] * 3
    assert told & KEPT  # anonymous, and more


@looking_again
def test_a_table_with_a_page_that_nobody_maps_needs_a_closer_look(
    kernel: Kernel, direct_map: DirectMap, frames: FrameMap, condenser: Condenser
) -> None:
    """It was moved after its entry was read: its old frame is free."""
    laid = Laid(kernel, direct_map, 3)
    laid.words[:2, :3] = int(own_frames(laid, direct_map)[2]) * PAGE | DATA
    plain, words = condenser.of_tables(laid.addresses[:2])
    words[1, 1] |= np.uint64(0xFFFF_FFFF << COUNT_SHIFT)  # _mapcount is -1
    _, mapcount, _ = decode_words(frames.layout, words[:, :3].ravel())
    assert mapcount.tolist() == [1, 1, 1, 1, 0, 1]
    table, length, _, pages = StructPages(frames)._runs(plain, words)
    assert pages.tolist() == [3, -1]
    assert (table.tolist(), length.tolist()) == ([0], [3])
