"""/proc/swaps, on recorded lines and on devices with any name."""

from __future__ import annotations

import os

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.swap import device_of, parse_swaps
from tests.proc.test_maps import ODD

HEADING = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
ZRAM = b"/dev/zram0                              partition\t262140\t\t4\t\t100\n"


def test_a_line_is_a_device() -> None:
    assert parse_swaps(HEADING + ZRAM) == [("/dev/zram0", 262140 << 10, 4 << 10)]
    assert parse_swaps(HEADING) == []


# swap_show (mm/swapfile.c) escapes these four, and nothing else.
@pytest.mark.parametrize("odd", [o for o in ODD if o not in (b" ", b"\t", b"\\")], ids=bytes.hex)
def test_a_path_keeps_every_byte(odd: bytes) -> None:
    path = b"/tmp/a%bb%b" % (odd, odd)
    swaps = parse_swaps(HEADING + b"%b file\t\t1020\t\t0\t\t-2\n" % path + ZRAM)
    assert [os.fsencode(swap.path) for swap in swaps] == [path, b"/dev/zram0"]


@pytest.mark.parametrize("line", [b"\n", b"/dev/zram0 partition\t2\n", ZRAM[:-1], ZRAM[:60]])
def test_an_invalid_line_of_swaps_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 2 of /proc/swaps"):
        parse_swaps(HEADING + line)


def test_only_device_0_can_be_named() -> None:
    # The first one listed is device 0, unless 0 was removed: then no entry has number 0.
    two = parse_swaps(HEADING + ZRAM + b"/dev/zram1 partition\t4\t\t0\t\t-2\n")
    assert device_of(0, two) == "/dev/zram0"
    assert device_of(1, two) is None
    assert device_of(1, two[:1]) is None
    assert device_of(0, []) is None
