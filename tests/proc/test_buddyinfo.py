"""/proc/buddyinfo, on lines written by hand and on this machine."""

from __future__ import annotations

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.buddyinfo import FreeBlocks, parse_buddyinfo, read_buddyinfo
from pagewalk.proc.zones import read_zones

TEXT = b"""\
Node 0, zone      DMA      0      0      0      0      1      1      3 \n\
Node 1, zone   Normal 1386800      2      0      0      0      0      0 \n\
"""


def test_each_zone_has_its_blocks_by_order() -> None:
    dma, normal = parse_buddyinfo(TEXT)
    assert dma == FreeBlocks(0, "DMA", (0, 0, 0, 0, 1, 1, 3))
    assert (normal.node, normal.zone) == (1, "Normal")


def test_a_block_of_an_order_has_two_to_that_power_pages() -> None:
    assert [free.pages for free in parse_buddyinfo(TEXT)] == [16 + 32 + 3 * 64, 1386800 + 2 * 2]


@pytest.mark.parametrize(
    "line", [b"\n", b"Node 0, zone DMA\n", b"Node 0, zone DMA -1\n", b"Node x, zone DMA 1\n",
             b"Node 0, zone DMA 1"],
)
def test_an_invalid_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 3 of buddyinfo"):
        parse_buddyinfo(TEXT + line)


def test_this_machines_blocks_are_those_of_its_zones_with_ram() -> None:
    names = [(zone.node, zone.name) for zone in read_zones() if zone.present]
    assert [(free.node, free.zone) for free in read_buddyinfo()] == names
