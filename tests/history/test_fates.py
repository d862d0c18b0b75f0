"""What became of each mapping: grown, shrunk, gone, moved, and compared as sums."""

from __future__ import annotations

from pagewalk.history.tally import Row
from pagewalk.model.columns import Backing, State
from tests.history.spaces import Space, compare, run, vmas
from tests.snapshot.by_hand import PAGE

ANON, FILE = Backing.ANON, Backing.FILE
HEAP = (10, 8, ANON, "[heap]", 0)


def rows(before: Space, after: Space, *, same: bool = True) -> dict[str, Row]:
    """Return what changed by VMA; the classes add up to the change of RSS."""
    found = compare(before, after, same=same, by="vma")
    assert found.unexplained == 0
    assert found.whole.change == after.rss - before.rss == sum(row.change for row in found.rows)
    for row in found.rows:
        assert row.after - row.before == row.change == sum(row.rss.values())
    return {f"{row.what} {(row.addr or 0) // PAGE}": row for row in found.rows}


def space(mapping: tuple[int, int, Backing, str, int], *pages: tuple[int, State]) -> Space:
    return Space(vmas(mapping), [[run(page, 1, state, page) for page, state in pages]])


def test_a_heap_that_grew_and_shrank_again() -> None:
    small = space(HEAP, (10, State.ANON), (11, State.ANON))
    large = space((10, 12, ANON, "[heap]", 0), (10, State.ANON), (11, State.ANON),
                  (12, State.ANON), (19, State.ANON), (20, State.ANON), (21, State.SWAPPED))
    row = rows(small, large)["[heap] 10"]
    assert row.bytes == {"touched": PAGE, "grown": 2 * PAGE, "swapped_out": PAGE,
                         "unchanged": 2 * PAGE}
    assert row.rss == {"touched": PAGE, "grown": 2 * PAGE} and row.swap == PAGE
    row = rows(large, small)["[heap] 10"]
    assert row.rss == {"unmapped": -2 * PAGE, "dropped": -PAGE}
    assert row.bytes["discarded"] == PAGE == -row.swap


def test_a_stack_grows_downwards() -> None:
    before = space((90, 10, ANON, "[stack]", 0), (95, State.ANON))
    after = space((80, 20, ANON, "[stack]", 0), (95, State.ANON), (85, State.ANON),
                  (92, State.ANON))
    after.batches = [sorted(after.batches[0])]
    row = rows(before, after)["[stack] 80"]
    assert row.rss == {"grown": PAGE, "touched": PAGE} and row.before == PAGE


def test_what_was_unmapped_has_a_row_of_its_own() -> None:
    before = Space(vmas(HEAP, (40, 4, FILE, "/a", 0)), [[run(40, 3, State.FILE, 7)]])
    after = Space(vmas(HEAP), [])
    row = rows(before, after)["/a 40"]
    assert row.bytes == {"unmapped": 3 * PAGE} and row.rss == {"unmapped": -3 * PAGE}
    assert (row.before, row.after) == (3 * PAGE, 0)


def test_a_mapping_that_was_split_loses_nothing() -> None:
    before = Space(vmas((10, 9, ANON, "", 0)), [[run(10, 9, State.ANON, 50)]])
    after = Space(vmas((10, 3, ANON, "", 0), (13, 2, ANON, "", 0), (17, 2, ANON, "", 0)),
                  [[run(10, 3, State.ANON, 50), run(13, 2, State.ANON, 53)],
                   [run(17, 2, State.ANON, 57)]])
    found = rows(before, after)
    assert list(found) == ["[anon] 10"]
    assert found["[anon] 10"].rss == {"unmapped": -2 * PAGE}


def test_memory_that_mremap_moved_is_at_another_address() -> None:
    before = Space(vmas((10, 4, ANON, "", 0)), [[run(10, 4, State.ANON, 50)]])
    after = Space(vmas((70, 4, ANON, "", 0)), [[run(70, 4, State.ANON, 50)]])
    found = rows(before, after)
    assert found["[anon] 10"].bytes == {"unmapped": 4 * PAGE}
    assert found["[anon] 70"].bytes == {"grown": 4 * PAGE}
    whole = compare(before, after).kinds
    assert [(row.what, row.change) for row in whole] == [("anonymous", 0)]


def test_another_mapping_at_the_same_address_is_not_compared_with_it() -> None:
    before = Space(vmas((10, 4, FILE, "/a", 0)), [[run(10, 4, State.FILE, 50)]])
    after = Space(vmas((10, 4, FILE, "/b", 0)), [[run(10, 1, State.FILE, 50)]])
    found = rows(before, after)
    assert found["/a 10"].bytes == {"unmapped": 4 * PAGE}
    assert found["/b 10"].bytes == {"grown": PAGE}


def test_of_two_processes_files_compare_by_page_and_the_rest_by_sums() -> None:
    before = Space(vmas(HEAP, (30, 4, FILE, "/a", 0), (40, 4, FILE, "/old", 0)),
                   [[run(10, 2, State.ANON, 1), run(30, 2, State.FILE, 5),
                     run(40, 1, State.FILE, 9)]])
    after = Space(vmas((110, 8, ANON, "[heap]", 0), (130, 4, FILE, "/a", 0),
                       (140, 4, FILE, "/new", 0)),
                  [[run(110, 5, State.ANON, 1), run(131, 2, State.FILE, 6),
                    run(140, 2, State.FILE, 9)]])
    found = rows(before, after, same=False)
    assert found["/a 130"].bytes == {"dropped": PAGE, "read_in": PAGE, "unchanged": PAGE}
    assert found["[heap] 110"].bytes == {"more": 3 * PAGE, "unchanged": 2 * PAGE}
    assert found["/old 40"].rss == {"unmapped": -PAGE}
    assert found["/new 140"].rss == {"grown": 2 * PAGE}
    less = rows(after, before, same=False)["[heap] 10"]
    assert less.rss == {"less": -3 * PAGE} and less.before == 5 * PAGE


def test_sums_of_several_mappings_are_in_no_single_place() -> None:
    before = Space(vmas((10, 4, ANON, "", 0)), [[run(10, 2, State.ANON, 1)]])
    after = Space(vmas((70, 4, ANON, "", 0), (80, 4, ANON, "", 0)),
                  [[run(70, 4, State.ANON, 1), run(80, 3, State.ANON, 9)]])
    (row,) = compare(before, after, same=False, by="vma").rows
    assert (row.what, row.change, row.addr, row.end) == ("[anon]", 5 * PAGE, None, None)
    (row,) = compare(after, before, same=False, by="vma").rows
    assert (row.addr, row.end) == (10 * PAGE, 14 * PAGE)
