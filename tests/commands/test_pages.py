"""Which pages are shown first: in any order, and never with more of them held than asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pagewalk.commands.pages import MOST_SORTED, check_sorted, first
from pagewalk.model.columns import Pages, take
from pagewalk.model.errors import BadRequest
from pagewalk.render.columns import choose
from tests import by_hand
from tests.by_hand import ROWS

PAGES = by_hand.pages(ROWS)


def batches(pages: Pages = PAGES, of: int = 3) -> Iterator[Pages]:
    for at in range(0, len(pages), of):
        yield take(pages, slice(at, at + of))


def found(sort: str | None, limit: int | None, of: int = 3) -> list[int]:
    """Return the positions of the pages that are shown."""
    shown = [int(addr) for batch in first(batches(of=of), choose("pages", None, sort, limit))
             for addr in batch.addr]
    return [PAGES.addr.tolist().index(addr) for addr in shown]


@pytest.mark.parametrize("of", [1, 3, 100])
@pytest.mark.parametrize("limit", [1, 2, 5, 13, 100])
@pytest.mark.parametrize("name", ["size", "mapcount", "pfn", "state", "addr"])
def test_the_order_is_that_of_all_pages_sorted_at_once(name: str, limit: int, of: int) -> None:
    every = range(len(ROWS))
    here = [row[2].name in ("FILE", "ANON", "SHMEM", "ZERO") for row in ROWS]
    value = {"size": lambda row: -row[1], "mapcount": lambda row: -row[6],
             "addr": lambda row: row[0], "pfn": lambda row: row[4],
             "state": lambda row: row[2].label}[name]
    lacking = [name in ("mapcount", "pfn") and not is_here for is_here in here]
    order = sorted(every, key=lambda at: (lacking[at], value(ROWS[at])))
    sort = "-pfn" if name == "pfn" else name
    # Pages that are not there have no order among themselves but their address.
    wanted = [at for at in order if not lacking[at]][:limit]
    assert found(sort, limit, of)[: len(wanted)] == wanted


def test_without_an_order_the_walk_ends_with_the_last_page_that_is_shown() -> None:
    taken: list[int] = []

    def counted() -> Iterator[Pages]:
        for batch in batches(of=3):
            taken.append(len(batch))
            yield batch

    shown = list(first(counted(), choose("pages", None, None, 4)))
    assert sum(map(len, shown)) == 4 and taken == [3, 3]
    assert found(None, None) == list(range(len(ROWS)))


def test_no_more_than_twice_the_limit_and_a_batch_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    def spied(parts: list[Pages]) -> Pages:
        nonlocal most
        most = max(most, sum(map(len, parts)))
        return real(parts)

    from pagewalk.model import columns

    real = columns.join
    monkeypatch.setattr(columns, "join", spied)
    many = take(PAGES, np.arange(10_000) % len(PAGES))
    shown = list(first(batches(many, 100), choose("pages", None, "size", 50)))
    assert sum(map(len, shown)) == 50
    assert 0 < most <= 2 * 50 + 100


@pytest.mark.parametrize(("sort", "limit", "why"), [
    ("mapcount", None, "add --limit N"), ("size", MOST_SORTED + 1, f"at most {MOST_SORTED}"),
    ("flags", 5, "cannot be sorted by flags"), ("swap", 5, "cannot be sorted by swap"),
])
def test_an_order_that_would_hold_every_page_is_refused(
    sort: str, limit: int | None, why: str
) -> None:
    with pytest.raises(BadRequest, match=why):
        check_sorted(choose("pages", None, sort, limit))
    check_sorted(choose("pages", None, "size", MOST_SORTED))


def test_what_is_withheld_cannot_be_sorted_by() -> None:
    hidden = by_hand.pages(ROWS, frames=False)
    with pytest.raises(BadRequest, match="--sort mapcount: page frames are withheld; run as root"):
        list(first(batches(hidden), choose("pages", None, "mapcount", 3)))
