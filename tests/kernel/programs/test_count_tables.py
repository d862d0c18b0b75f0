"""The program that counts whole page tables, on tables laid out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pagewalk.kernel.programs.count_tables import TableCounter
from pagewalk.kernel.programs.loops import find_casts
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.pagetables.format import Arch
from pagewalk.proc.zones import read_memory
from tests.kernel.laid import FRAME, SPECIAL, Laid
from tests.kernel.loops import needs_loops
from tests.live.bracket import looking_again
from tests.memory import DATA, PAGE

pytestmark = [
    pytest.mark.live,
    needs_loops,
]


@pytest.fixture(scope="module")
def counter(kernel: Kernel, arch: Arch) -> Iterator[TableCounter]:
    loaded = TableCounter(find_casts(kernel.btf), arch)
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
