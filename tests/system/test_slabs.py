"""Kernel objects by cache, of this kernel: against vmstat, and for a group that holds some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import scan_frames
from pagewalk.proc.iomem import read_ranges
from pagewalk.system.slabs import Cache, SlabLook, SlabReport
from tests.charges import ROOT, member
from tests.kernel_says import PAGE
from tests.live.bracket import look_again
from tests.machine import memory_cgroup

SIZES = {"name": "some", "size": 8192, "each": 1000, "slabs": 2, "places": 8}


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    opened = open_running(open_bpf())
    yield opened
    opened.kernel.close()


def look_at(running: RunningKernel) -> SlabReport:
    look = SlabLook(running.kernel, running.direct_map, PAGE)
    for frames in scan_frames(running, read_ranges()):
        look.add(frames)
    return look.report()


def test_what_holds_no_object_is_free_places_and_ends() -> None:
    cache = Cache(**SIZES, least=5, most=6, reclaimable=True, charges=())  # type: ignore[arg-type]
    assert (cache.unused, cache.ends) == (2192, 192)
    report = SlabReport((cache, cache._replace(reclaimable=False, size=4096)), 0, 0, ())
    assert report.size() == report.size(reclaimable=True) + report.size(reclaimable=False) == 12288


@pytest.mark.live
@pytest.mark.vmshort
def test_reclaimable_slabs_are_those_of_vmstat(running: RunningKernel) -> None:
    def said() -> int:
        # each CPU counts some of it for itself; reading this adds that up
        Path("/proc/sys/vm/stat_refresh").read_bytes()
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["nr_slab_reclaimable"]) * PAGE

    def look() -> None:
        before = said()
        report = look_at(running)
        assert said() == before == report.size(reclaimable=True)

    look_again(look)


@pytest.mark.live
@pytest.mark.vmshort
def test_a_group_is_charged_for_what_it_holds(running: RunningKernel) -> None:
    with memory_cgroup("slabs") as group:
        path = "/" + str(group.relative_to(ROOT))
        with member(group, "descriptors", 2000) as _:
            report = look_at(running)
        files = next(cache for cache in report.caches if cache.name == "filp")
        assert files.charges is not None and report.withheld == ()
        ours = next(charge for charge in files.charges if charge.group == path)
        assert ours.objects >= 2000
        assert ours.bytes == ours.objects * (files.each + 8)
        assert files.charges == tuple(sorted(files.charges, key=lambda one: -one.bytes))
        assert files.least <= files.most <= files.places
    assert [cache.size for cache in report.caches] == sorted(
        (cache.size for cache in report.caches), reverse=True
    )
