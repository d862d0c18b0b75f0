"""Which device a swapped page is on: never the wrong name, whatever was removed before."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from pagewalk.sources import close, open_process
from pagewalk.translate.translate import translate
from tests.kernel_says import PAGE, SWAP, SWAP_TYPE, read_pagemap
from tests.live.bracket import working_sources
from tests.machine import alone, zram
from tests.targets import start

pytestmark = pytest.mark.live

TABLE_SOURCES = [name for name in working_sources() if name != "procfs"]
MIB = 16


def swapped_pages(pid: int, start_at: int, end: int) -> dict[int, int]:
    """Return one swapped address for each device number, from pagemap."""
    words = read_pagemap(pid, start_at, end)
    rows = np.flatnonzero(words & np.uint64(SWAP) != 0)
    return {int(words[row]) & SWAP_TYPE: start_at + int(row) * PAGE for row in rows.tolist()}


def names_told(source: str, devices: list[Path]) -> set[tuple[int, str]]:
    """Swap a process out; return (number, reported name) of its pages, by number.

    ``devices`` are those in use in ascending order; the machine may have others before them.
    """
    listed = [line.split(b" ")[0] for line in Path("/proc/swaps").read_bytes().split(b"\n")[1:-1]]
    assert listed == [str(device).encode() for device in devices]
    told = set()
    with start("swap_private", stopped=True) as running:
        region = running.facts["private"]
        opened = open_process(running.pid, source)
        try:
            found = swapped_pages(running.pid, region["start"], region["end"])
            assert found
            for number, addr in found.items():
                said = translate(opened, f"{addr:x}")
                assert dict(said.trace.last.says)["type"] == number
                told.add((number, said.device or ""))
        finally:
            close(opened)
    return told


@pytest.mark.parametrize("source", TABLE_SOURCES)
def test_a_removed_device_gives_its_name_to_no_other(source: str) -> None:
    with alone(), ExitStack() as stack:
        if Path("/proc/swaps").read_bytes().count(b"\n") > 1:
            pytest.skip("the machine swaps on devices of its own")
        first = stack.enter_context(ExitStack())
        a = first.enter_context(zram(MIB))
        assert names_told(source, [a]) == {(0, str(a))}
        b, c = stack.enter_context(zram(MIB)), stack.enter_context(zram(MIB))
        first.close()
        # Now 1 is b and 2 is c, and the list's second line is 2.
        assert names_told(source, [b, c]) <= {(1, ""), (2, "")}
        # The lowest free number is reused.
        d = stack.enter_context(zram(MIB))
        assert names_told(source, [d, b, c]) <= {(0, str(d)), (1, ""), (2, "")}
