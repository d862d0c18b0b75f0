"""The running, opened once: what may change while it is open."""

from __future__ import annotations

from typing import Any

import pytest

from pagewalk.kernel import running
from pagewalk.kernel.running import RunningKernel, as_it_is_now
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.format import Era
from pagewalk.proc.zones import Memory

GIB, PAGE = 1 << 30, 4096
NOTHING: Any = None


@pytest.mark.parametrize(
    ("memory", "last_ram", "last_page"),
    [
        (Memory(2 * GIB, devices=False), 2 * GIB // PAGE - 1, 2 * GIB // PAGE - 1),
        (Memory(3 * GIB, devices=False), 3 * GIB // PAGE - 1, 3 * GIB // PAGE - 1),  # plugged in
        (Memory(2 * GIB, devices=True), 2 * GIB // PAGE - 1, (1 << 40 - 12) - 2),  # a driver came
    ],
)
def test_the_bounds_of_memory_are_the_current_ones(
    memory: Memory, last_ram: int, last_page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = ARCHES["x86_64"].on(4, Era((6, 18), 40, max_pfn=2 * GIB // PAGE - 1))
    opened = RunningKernel(NOTHING, NOTHING, NOTHING, arch, None, 0, ())
    monkeypatch.setattr(running, "memory_in", lambda second: memory)
    now = as_it_is_now(opened)
    assert (now.arch.last_ram_frame, now.arch.last_page_frame) == (last_ram, last_page)
    assert (now is opened) == (memory == Memory(2 * GIB, devices=False))
