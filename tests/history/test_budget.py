"""What a tree holds, between its bounds; budgets; what is kept of the worst moment."""

from __future__ import annotations

from typing import Any

import pytest

from pagewalk.history import budget
from pagewalk.history.budget import Bounds, Look, Watched, Worst, bounds, maybe_merged, together
from pagewalk.history.verdicts import verdict
from pagewalk.proc.tree import Holds

KIB, MIB = 1 << 10, 1 << 20


def holds(pid: int = 1, **amounts: Any) -> Holds:
    given = {"rss": 0, "uss": 0, "pss": 0, "anon": 0, "pss_anon": 0, "swap": 0, "swap_pss": 0,
             "swap_most": 0, "peak": 0, "hugetlb": 0} | amounts
    return Holds(pid, 0, f"p{pid}", 1, 0, **given)


# ---- bounds


def test_of_one_process_everything_is_exact() -> None:
    one = holds(rss=9 * MIB, uss=5 * MIB, pss=6 * MIB, anon=4 * MIB, pss_anon=4 * MIB)
    for alone in (True, False):
        assert bounds([one], alone=alone) == {
            "uss": (5 * MIB, 5 * MIB), "pss": (6 * MIB, 6 * MIB), "rss": (9 * MIB, 9 * MIB),
            "swap": (0, 0)}


def test_what_a_process_and_its_child_share_counts_once() -> None:
    # 8 MiB anonymous that both map, 1 MiB that each has alone; and 3 MiB of a file in both, which
    # one more process maps: PSS is 4 + 1 + 1 of each.
    both = [holds(pid, rss=12 * MIB, uss=MIB, pss=6 * MIB, anon=9 * MIB, pss_anon=5 * MIB)
            for pid in (1, 2)]
    found = bounds(both, alone=True)
    # The truth: 10 MiB alone, 13 in RAM.
    assert found["uss"] == (10 * MIB, 12 * MIB + 2 * KIB)
    assert found["rss"] == (13 * MIB, 16 * MIB + 2 * KIB)
    assert found["pss"] == (12 * MIB, 12 * MIB)


def test_what_each_has_alone_and_what_is_shared_add_up_to_pss() -> None:
    # As above: the truth is 8 MiB shared within the tree, and of 3 MiB shared with one other 2.
    both = [holds(pid, rss=12 * MIB, uss=MIB, pss=6 * MIB, anon=9 * MIB, pss_anon=5 * MIB)
            for pid in (1, 2)]
    dark = Holds(3, 1, "sudo", 1, 0, 0, 7 * MIB, 0, refused="it belongs to uid 0")
    for family in (both, [*both, dark]):
        found = together(family, bounds(family, alone=True)["uss"])
        assert (found.pss, found.alone) == (12 * MIB, 2 * MIB)
        assert found.within == (8 * MIB, 10 * MIB) and found.others == (0, 2 * MIB)
        assert found.alone + found.within.low + found.others.high == found.pss
        assert found.alone + found.within.high + found.others.low == found.pss


def test_where_others_may_share_it_the_bounds_are_wider() -> None:
    both = [holds(pid, rss=12 * MIB, uss=MIB, pss=6 * MIB, anon=9 * MIB, pss_anon=5 * MIB)
            for pid in (1, 2)]
    found = bounds(both, alone=False)
    assert found["uss"] == (2 * MIB, 12 * MIB + 2 * KIB)
    assert found["rss"] == (12 * MIB, 24 * MIB)


@pytest.mark.parametrize(("ksm", "anywhere", "maybe"), [
    ((0, 0), True, False), ((0, 4096), False, True), ((None, None), False, False),
    ((None, None), True, True),
])
def test_merged_pages_matter_where_these_processes_have_some(
    ksm: tuple[int | None, ...], anywhere: bool, maybe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "merges_pages", lambda: anywhere)
    found = maybe_merged([holds(pid, ksm=one) for pid, one in enumerate(ksm)])
    assert found is maybe


def test_a_process_that_may_not_be_read_widens_the_bounds() -> None:
    known = holds(1, rss=4 * MIB, uss=2 * MIB, pss=3 * MIB, anon=2 * MIB, pss_anon=2 * MIB)
    dark = Holds(2, 1, "sudo", 1, 0, 0, 7 * MIB, 0, refused="it belongs to uid 0")
    found = bounds([known, dark], alone=True)
    assert found["uss"] == (2 * MIB, 10 * MIB + KIB)
    assert found["pss"] == (3 * MIB, 10 * MIB)
    assert found["rss"] == (7 * MIB, 11 * MIB + KIB)
    assert bounds([dark], alone=True)["rss"] == (7 * MIB, 7 * MIB)
    assert bounds([dark], alone=True)["uss"] == (0, 7 * MIB)


def test_a_slot_of_swap_that_two_processes_share_counts_once() -> None:
    both = [holds(pid, swap=6 * MIB, swap_pss=4 * MIB, swap_most=6 * MIB) for pid in (1, 2)]
    assert bounds(both, alone=True)["swap"] == (8 * MIB, 12 * MIB)
    # What is swapped of shared memory is in no counter of a process.
    assert bounds([holds(swap=MIB, swap_pss=MIB, swap_most=3 * MIB)], alone=True)["swap"] == (
        MIB, 3 * MIB)


# ---- what is seen over time


def look(at: float, **low: int) -> Look:
    amounts = {key: Bounds(low.get(key, 0), low.get(key, 0))
               for key in ("uss", "pss", "rss", "swap")}
    of = (holds(rss=low.get("rss", 0), peak=low.get("hwm", low.get("rss", 0))),)
    return Look(at, 0.001, of, amounts, together(of, amounts["uss"]))


def watched(**budgets: int) -> tuple[Watched, list[Look]]:
    described: list[Look] = []

    def describe(measure: str, one: Look) -> Worst:
        described.append(one)
        return Worst(measure, one, {}, None if one.at < 0 else MADE)

    return Watched(budgets, describe), described


MADE: Any = object()


def test_a_peak_stays_and_the_last_look_is_the_last() -> None:
    seen, _ = watched(uss=10)
    for at, amount in enumerate((3, 9, 4)):
        seen.add(look(at, uss=amount))
    assert verdict(seen, "uss") == ("uss", 10, 9, 1, "a look", 9, (4, 4), False, 0)
    assert seen.looks == 3 and seen.gap == 1


def test_a_budget_holds_up_to_its_last_byte() -> None:
    for amount, exceeded in ((10, False), (11, True)):
        seen, described = watched(swap=10)
        seen.add(look(0, swap=amount))
        assert verdict(seen, "swap").exceeded is exceeded and bool(described) is exceeded


def test_between_two_bounds_it_is_not_known() -> None:
    seen, described = watched(rss=10)
    seen.add(look(0)._replace(amounts={"uss": Bounds(0, 0), "pss": Bounds(0, 0),
                                       "rss": Bounds(9, 12), "swap": Bounds(0, 0)}))
    assert verdict(seen, "rss").exceeded is None and not described
    seen.add(look(1, rss=11))
    assert verdict(seen, "rss").exceeded is True


def test_what_grows_slowly_is_not_described_at_every_step() -> None:
    seen, described = watched(uss=100)
    for amount in range(90, 400):
        seen.add(look(amount, uss=amount))
    assert verdict(seen, "uss").at_least == 399
    # Each is at least a sixteenth above the one before: 101 * (17/16) ** n <= 399.
    assert described[0].amounts["uss"].low == 101 and len(described) <= 24
    assert seen.worst["uss"].look.amounts["uss"].low > 399 - 399 // 16


def test_what_was_gone_when_it_was_described_is_described_later() -> None:
    seen, _ = watched(uss=100)
    seen.add(look(-1, uss=200))
    assert seen.worst["uss"].made is None
    seen.add(look(1, uss=201))
    assert seen.worst["uss"].made is MADE
    seen.add(look(-1, uss=400))
    assert seen.worst["uss"].look.at == 1


def test_a_look_that_finds_nothing_tells_nothing() -> None:
    seen, _ = watched(uss=1)
    seen.add(Look(0, 0, (), {}, together((), Bounds(0, 0))))
    assert seen.looks == 0 and verdict(seen, "uss").exceeded is None


def test_vm_hwm_counts_less_what_it_may_overstate() -> None:
    seen, _ = watched(rss=100 * MIB)
    seen.add(look(0, rss=20 * MIB, hwm=900 * MIB))
    found = verdict(seen, "rss")
    assert found.exceeded is True and found.by == "VmHWM" and found.at is None
    # 3 counters, on each CPU at most as many pages as a batch: less than 800 MiB below 1000 CPUs.
    assert found.at_least is not None and 100 * MIB < found.at_least < 900 * MIB


def test_what_vm_hwm_has_beyond_all_looks_may_have_been_alone() -> None:
    for uss, exceeded in ((1, False), (80, None), (120, True)):
        seen, _ = watched(uss=100 * MIB)
        seen.add(look(0, uss=uss * MIB, rss=200 * MIB, hwm=250 * MIB))
        found = verdict(seen, "uss")
        assert found.exceeded is exceeded
        # 3 counters, on each CPU as many pages as a batch at most.
        assert found.at_least == uss * MIB and 0 < found.between <= 50 * MIB
