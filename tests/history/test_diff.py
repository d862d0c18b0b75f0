"""What changed between two sides: the sums, and what is refused or withheld."""

from __future__ import annotations

import pytest

from pagewalk.history.diff import diff
from pagewalk.history.matching import Matched, Pair
from pagewalk.model.columns import Backing, State
from pagewalk.model.errors import BadRequest
from tests.history.spaces import TELLS, Look, Space, compare, member, moment, run, vmas
from tests.snapshot.by_hand import FACTS, PAGE

ANON, FILE = Backing.ANON, Backing.FILE
MAPS = vmas((10, 8, ANON, "[heap]", 0), (30, 8, FILE, "/a", 0))
BEFORE = Space(MAPS, [[run(10, 4, State.ANON, 1)], [run(30, 4, State.FILE, 20, 2)]])
AFTER = Space(MAPS, [[run(11, 7, State.ANON, 2), run(30, 1, State.ANON, 40)],
                     [run(31, 2, State.FILE, 99, 2)]])


@pytest.mark.parametrize("by", ["kind", "file", "vma", "process"])
def test_all_tables_add_up_to_the_same(by: str) -> None:
    found = compare(BEFORE, AFTER, by=by)
    assert found.unexplained == 0
    assert found.whole.change == AFTER.rss - BEFORE.rss == 2 * PAGE
    assert found.whole.rss == {"touched": 4 * PAGE, "dropped": -2 * PAGE}
    assert found.whole.bytes == {"touched": 4 * PAGE, "dropped": 2 * PAGE, "unchanged": 3 * PAGE,
                                 "copied": PAGE, "moved": 2 * PAGE}
    for rows in (found.rows, found.kinds):
        for key in found.whole.bytes:
            assert sum(row.bytes.get(key, 0) for row in rows) == found.whole.bytes[key]
        assert sum(row.before for row in rows) == BEFORE.rss
        assert sum(row.after for row in rows) == AFTER.rss
    assert found.most is not None
    assert (found.most.name, found.most.change) == ("[heap]", 3 * PAGE)


def test_nothing_changed_in_nothing() -> None:
    found = compare(BEFORE, BEFORE)
    assert (found.rows, found.kinds, found.whole.changed, found.growth) == ((), (), False, 0)
    assert found.unexplained == 0 and found.most is None


def test_a_process_that_one_side_lacks_counts_as_a_whole() -> None:
    matched = Matched((), (member(1),), (member(2),))
    found = diff(Look({1: BEFORE}), Look({2: AFTER}), matched)
    assert found.whole.rss == {"ended": -BEFORE.rss, "began": AFTER.rss}
    assert found.unexplained == 0


@pytest.mark.parametrize(("changed", "why"), [
    ({"physical": False}, "numbered anew"), ({"boot": "another"}, "two boots"),
    ({"boot": ""}, "two boots"),
])
def test_frames_are_compared_only_where_their_numbers_mean_the_same(
    changed: dict[str, object], why: str
) -> None:
    found = compare(BEFORE, AFTER, **changed)
    assert "moved" not in found.whole.bytes
    assert [row.what for row in found.withheld] == ["moved"]
    assert why in found.withheld[0].why


def test_what_one_side_does_not_tell_is_said() -> None:
    poor = Space(MAPS, AFTER.batches, TELLS._replace(frames=False, huge=False))
    what = [row.what for row in compare(BEFORE, poor).withheld]
    assert what == ["became huge, no longer huge", "became shared, became private"]


def test_sums_are_said_of_those_alone_that_are_not_the_same() -> None:
    spaces = {1: BEFORE, 2: BEFORE, 3: BEFORE}
    same = [Pair(member(pid), member(pid), True) for pid in (1, 2)]
    other = Pair(member(3), member(3), False)
    for pairs, said in (([*same, other], "of 1 of 3 processes compared as sums"),
                        ([other], "compared as sums"), (same, None)):
        found = diff(Look(spaces), Look(spaces), Matched(tuple(pairs), (), ()))
        whys = [row.why for row in found.withheld if row.what == "anonymous memory, page by page"]
        assert [why.startswith(said or "") for why in whys] == [True] * (said is not None)


def test_where_rss_is_withheld_nothing_is_proved() -> None:
    class Unsure(Look):
        def rss(self, _member: object) -> None:
            return None

    matched = Matched((Pair(member(), member(), True),), (), ())
    found = diff(Look({1: BEFORE}), Unsure({1: AFTER}), matched)
    assert found.unexplained is None
    assert "unexplained" in [row.what for row in found.withheld]


def test_what_does_not_add_up_is_unexplained() -> None:
    class Wrong(Look):
        def rss(self, _member: object) -> int:
            return AFTER.rss + PAGE

    matched = Matched((Pair(member(), member(), True),), (), ())
    assert diff(Look({1: BEFORE}), Wrong({1: AFTER}), matched).unexplained == PAGE


@pytest.mark.parametrize(("changed", "words"), [
    ({"page_size": 16384}, "different sizes of pages, 4096 and 16384"),
    ({"architecture": "aarch64"}, "different architectures, x86_64 and aarch64"),
])
def test_pages_of_other_machines_are_refused(changed: dict[str, object], words: str) -> None:
    matched = Matched((Pair(member(), member(), False),), (), ())
    with pytest.raises(BadRequest, match=words):
        diff(Look({1: BEFORE}), Look({1: AFTER}, moment(), FACTS._replace(**changed)), matched)
