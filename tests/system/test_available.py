"""MemAvailable as the kernel reckons it: zones by hand, and this kernel's own."""

from __future__ import annotations

import pytest

from pagewalk.model.frames import Kind
from pagewalk.proc.totals import Totals, read_totals
from pagewalk.system.available import available_causes, reckon, reserves
from pagewalk.system.census import Count
from pagewalk.system.headroom import headroom
from pagewalk.system.ram import NO_LABELS
from tests.by_hand import PAGE
from tests.kernel_says import PAGE as REAL_PAGE
from tests.live.bracket import look_again
from tests.system import by_hand
from tests.system.by_hand import Run, frames

ZONE = by_hand.ZONE._replace(protection=(0, 300, 200), low=20, high=30, boost=0, managed=5000)


def totals(**pages: int) -> Totals:
    names = {"free": "MemFree", "active": "Active(file)", "inactive": "Inactive(file)",
             "slab": "SReclaimable"}
    given = dict.fromkeys(names, 0) | pages
    return by_hand.totals({name: given[key] * PAGE for key, name in names.items()})


def test_a_zone_keeps_what_zones_above_may_not_take_and_its_high_watermark() -> None:
    assert reserves([ZONE]) == 330
    assert reserves([ZONE, ZONE._replace(managed=40)]) == 370  # no more than it has
    assert reserves([ZONE._replace(protection=())]) == 30


def test_a_boost_does_not_count_in_reserves() -> None:
    assert reserves([ZONE._replace(boost=25, high=55)]) == 330


@pytest.mark.parametrize(("cache", "kept"), [(10, 5), (11, 5), (39, 19), (40, 20), (4000, 20)])
def test_half_is_held_back_up_to_the_low_watermarks(cache: int, kept: int) -> None:
    told = reckon(totals(active=cache)._replace(zones=[ZONE]), PAGE)
    assert told is not None and told.kept_cache == kept
    told = reckon(totals(slab=cache)._replace(zones=[ZONE]), PAGE)
    assert told is not None and told.kept_slab == kept


def test_less_than_nothing_is_shown_as_nothing() -> None:
    counted = Count(9)
    counted.add(frames(Run(Kind.BUDDY, 100)))
    told = totals(free=100)._replace(zones=[ZONE])
    room = headroom(counted.census, NO_LABELS)
    causes = available_causes(room, {"listed": 0, "cpu_lists": 0}, told, PAGE)
    assert causes is not None
    # 100 are free, 330 are kept: the kernel says 0, and all the difference has a name
    assert sum(cause.bytes for cause in causes) == 100 * PAGE


def test_without_its_numbers_nothing_is_reckoned() -> None:
    assert reckon(totals()._replace(zones=None), PAGE) is None
    assert reckon(totals()._replace(meminfo=None), PAGE) is None


@pytest.mark.live
@pytest.mark.vmshort
def test_this_kernel_reckons_so() -> None:
    def look() -> None:
        before, after = read_totals(refresh=True), read_totals(refresh=False)
        told, again = (reckon(one, REAL_PAGE) for one in (before, after))
        assert told is not None and told == again  # nothing moved meanwhile
        assert before.meminfo is not None
        assert before.meminfo["MemAvailable"] == REAL_PAGE * max(told.available, 0)

    look_again(look)
