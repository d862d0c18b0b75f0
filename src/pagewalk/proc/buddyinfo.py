"""/proc/buddyinfo: the free blocks of each zone, by size."""

import re
from typing import NamedTuple

from pagewalk.proc.files import decode_name, read_for_all, rows, words

PATH = "/proc/buddyinfo"
# "Node 0, zone   Normal  13868  12333   7059 " (frag_show_print, mm/vmstat.c)
LINE = re.compile(rb"(?m)^Node +(\d{1,10}), zone +([^ \n]+)((?: +\d{1,20})+) *\n")


class FreeBlocks(NamedTuple):
    """The free blocks of a zone of a node: ``blocks[order]`` of ``1 << order`` pages each."""

    node: int
    zone: str
    blocks: tuple[int, ...]

    @property
    def pages(self) -> int:
        """Return how many pages they are; those in the lists of a CPU are in none of them."""
        return sum(count << order for order, count in enumerate(self.blocks))


def parse_buddyinfo(text: bytes) -> list[FreeBlocks]:
    """Return the free blocks of each populated zone, in file order; raises BadText."""
    return [
        FreeBlocks(int(node), decode_name(zone), tuple(int(word) for word in words(counts)))
        for node, zone, counts in rows(LINE, text, "buddyinfo")
    ]


def read_buddyinfo() -> list[FreeBlocks]:
    """Return the free blocks in /proc/buddyinfo; raises SourceUnavailable, BadText.

    The kernel takes the lock of one zone at a time, so the zones are of different moments.
    """
    return parse_buddyinfo(read_for_all(PATH))
