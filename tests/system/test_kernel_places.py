"""Frames that the kernel's mappings tell the use of: each once, and those it has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import scan_frames
from pagewalk.kernel.structs.kernel_map import FrameRanges, memmap_frames
from pagewalk.kernel.structs.vmap_areas import of_areas
from pagewalk.model.columns import I64, join, take
from pagewalk.proc import kallsyms
from pagewalk.proc.iomem import read_ranges
from pagewalk.system.census import Placed
from pagewalk.system.kernel_places import _placed, area_places, kernel_places
from pagewalk.system.ram import PARTS
from tests.live.bracket import look_again


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    opened = open_running(open_bpf())
    yield opened
    opened.kernel.close()


def ranges(*rows: tuple[int, int]) -> FrameRanges:
    cells: I64 = np.array(rows, np.int64).reshape(-1, 2)
    return FrameRanges(cells[:, 0], cells[:, 1])


def test_a_frame_with_two_uses_has_the_first() -> None:
    none = ranges()
    placed = _placed([ranges((10, 2)), none, none, ranges((11, 2), (5, 1)), none])
    assert placed.pfn.tolist() == [5, 10, 11, 12]
    assert [placed.names[use] for use in placed.use] == ["vmalloc", "memmap", "memmap", "vmalloc"]
    assert len(_placed([none] * 5).pfn) == 0


@pytest.mark.live
@pytest.mark.vmshort
def test_the_kernels_frames_have_uses(running: RunningKernel) -> None:
    slabs = join([of_areas(running.kernel, f) for f in scan_frames(running, read_ranges())])
    places = kernel_places(running, slabs)
    assert places.withheld == () and places.asked is not None
    names, pages = np.unique(places.placed.use, return_counts=True)
    found = dict(zip([places.placed.names[at] for at in names], pages.tolist(), strict=True))
    assert {"memmap", "kernel_stack", "vmalloc", "percpu"} <= found.keys()
    assert found.keys() <= {part.name for part in PARTS}
    memmap = memmap_frames(running.kernel, running.direct_map, running.arch, running.mem_map)
    assert found["memmap"] == memmap.pages.sum()
    assert (np.diff(places.placed.pfn) > 0).all()


@pytest.mark.live
def test_areas_alone_are_told_without_symbols(running: RunningKernel) -> None:
    def look() -> None:
        slabs = join([of_areas(running.kernel, f) for f in scan_frames(running, read_ranges())])
        whole, (alone, missing) = kernel_places(running, slabs).placed, area_places(running, slabs)
        assert missing == ()
        stacks, vmalloc, same = (of(whole, "kernel_stack"), of(whole, "vmalloc"), "percpu")
        told = of(alone, "kernel_stack")
        assert told and told <= stacks and of(alone, same) == of(whole, same)
        assert of(alone, "vmalloc") == vmalloc | (stacks - told)  # of idle tasks

    look_again(look)


def of(placed: Placed, name: str) -> set[int]:
    return set(placed.pfn[placed.use == placed.names.index(name)].tolist())


@pytest.mark.live
def test_what_cannot_be_read_is_withheld(
    running: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = kallsyms.parse_kallsyms(b"0000000000000000 T _text\n")
    monkeypatch.setattr("pagewalk.system.kernel_places.read_kallsyms", lambda: hidden)
    slabs = join([of_areas(running.kernel, f) for f in scan_frames(running, read_ranges())])
    places = kernel_places(running, slabs)
    assert [row.partial for row in places.withheld] == [True]
    assert places.asked is not None and set(places.asked.caller) == {None}
    nothing = kernel_places(running, take(slabs, slice(0)))
    assert nothing.asked is None and "prove to be areas" in nothing.withheld[-1].why
    assert {nothing.placed.names[use] for use in nothing.placed.use} == {"memmap"}
