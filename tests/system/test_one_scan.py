"""Several looks share a scan: one that fails does not take the others with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest

from pagewalk.model.columns import Withheld
from pagewalk.model.errors import NotPermitted, SourceUnavailable
from pagewalk.model.frames import Frames, Kind
from pagewalk.proc.kernel import read_facts
from pagewalk.sources.ram import COUNTERS, RamSource
from pagewalk.system.one_scan import Begun, OneScan, scan
from tests.system.by_hand import Run, frames

BATCHES = [frames(Run(Kind.ANON, 4)), frames(Run(Kind.BUDDY, 8), first=4)]


class Two(RamSource):
    """All of RAM in two batches."""

    def frames(self) -> Iterator[Frames]:
        return iter(BATCHES)


SOURCE = Two("by hand", read_facts(), None, [(0, 12)])


class Pages:
    """Counts pages, and fails when there are ``most``."""

    def __init__(self, most: int = 99) -> None:
        self.pages, self.most = 0, most

    def add(self, frames: Frames) -> None:
        self.pages += int(frames.pages.sum())
        if self.pages > self.most:
            raise SourceUnavailable("struct page", "gone", "try again")


def refuses() -> NoReturn:
    raise NotPermitted("that", "refused", "run as root")


def test_each_look_is_given_everything_and_fails_alone() -> None:
    good, late, never = Begun(Pages), Begun(lambda: Pages(3)), Begun(refuses)
    plain = Pages()
    scan(SOURCE, [late, good, never, plain])
    assert good.ended().pages == plain.pages == 12
    with pytest.raises(SourceUnavailable, match="gone"):
        late.ended()
    with pytest.raises(NotPermitted, match="refused"):
        never.ended()


def test_a_mistake_of_ours_is_not_kept_for_later() -> None:
    class Wrong:
        def add(self, _: Frames) -> None:
            raise TypeError

    with pytest.raises(TypeError):
        scan(SOURCE, [Begun(Wrong)])


def test_where_frames_are_not_visible_each_look_says_so() -> None:
    why = Withheld("what each frame is used for", "no rights", partial=True)
    machine = OneScan(RamSource(COUNTERS, read_facts(), None, None, (why,)), physical=True)
    assert machine.ram().source == COUNTERS
    for look in (machine.files, machine.slab, machine.map, lambda: machine.cgroups(dying=True)):
        with pytest.raises(NotPermitted):
            look()
