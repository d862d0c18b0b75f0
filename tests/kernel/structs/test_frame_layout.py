"""What struct page says of a frame's use, from BTF written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.kernel.structs.frame_layout import frame_layout
from pagewalk.model.errors import NotInBtf
from tests.kernel.structs.struct_pages import TYPES, btf


def test_offsets_on_6_18() -> None:
    layout = frame_layout(btf(new=True))
    assert (layout.size, layout.memcg, layout.lru, layout.private) == (64, 56, 8, 40)
    assert (layout.slab_cache, layout.slab_counters) == (8, 40)
    assert layout.compound_order is None
    assert (layout.reserved, layout.swapbacked) == (1 << 13, 1 << 17)
    assert layout.swap_cache == 1 << 10 | 1 << 17
    assert set(layout.types) == set(TYPES)


def test_offsets_on_6_1() -> None:
    layout = frame_layout(btf(new=False))
    assert (layout.slab_cache, layout.slab_counters) == (24, 40)
    assert layout.compound_order == 64 + 17  # of the second page
    assert set(layout.types) == {"buddy", "offline", "table", "guard"}


def test_only_flags_that_tell_a_use_are_kept() -> None:
    layout = frame_layout(btf(new=False))
    assert layout.kept == 1 << 5 | 1 << 9 | 1 << 10 | 1 << 13 | 1 << 17  # not PG_head


def test_a_kernel_without_memory_cgroups() -> None:
    assert frame_layout(btf(new=True, without=("memcg_data",))).memcg is None


def test_types_of_6_11_are_clear_bits_in_the_top_byte() -> None:
    # include/linux/page-flags.h of 6.11
    names = {"PG_buddy": 0x40000000, "PG_table": 0x10000000, "PAGE_TYPE_BASE": 0x80000000}
    types = frame_layout(btf(new=True, types=names)).types
    words = np.array([0xFFFFFFFF & ~0x40000000, 0xFFFFFFFF & ~0x10000000, 0xFFFFFFFF, 3], np.uint32)
    assert types["buddy"].test(words).tolist() == [True, False, False, False]
    assert types["table"].test(words).tolist() == [False, True, False, False]


def test_without_free_blocks_there_is_nothing_to_go_by() -> None:
    with pytest.raises(NotInBtf, match="buddy"):
        frame_layout(btf(new=True, types={"PGTY_table": 0xF2}))
