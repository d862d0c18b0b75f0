"""Lines of `top`: members added up by what they have in common, and what has grown."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from pagewalk.system.processes import LiveProcesses
from pagewalk.system.top import Line, add_up, by_name, by_program, line_of, since
from tests import by_hand
from tests.share_by_hand import MIB, family, top


def added_up(lines: Iterable[Line]) -> list[Line]:
    found: dict[int | str, Line] = {}
    add_up(found, lines)
    return list(found.values())


def test_members_with_the_same_key_are_one_line() -> None:
    lines = added_up(line_of(one, by_program(LiveProcesses())) for one in family().looked.members)
    assert [(line.key, line.processes, line.uss, line.rss) for line in lines] == [
        ("server", 1, 12 * MIB, 60 * MIB), ("worker", 2, 12 * MIB, 100 * MIB)]


def test_what_is_withheld_of_one_is_withheld_of_the_sum() -> None:
    one, other = Line("x", "x", 1, 1, None, 3, 0), Line("x", "x", 2, 1, 2, 3, 0)
    for pair in ([one, other], [other, one]):
        assert added_up(pair) == [Line("x", "x", 3, 2, None, 6, 0)]


@pytest.mark.parametrize(
    ("before", "grown"), [(40 * MIB, 20 * MIB), (61 * MIB, -MIB), (None, None)])
def test_a_line_has_grown_by_its_rss(before: int | None, grown: int | None) -> None:
    now = top()
    then = now._replace(lines=(now.lines[0]._replace(rss=before),))
    found = since(now, then).lines
    assert found[0].grown == grown
    assert found[1].grown == 50 * MIB  # a process that was not there before
    assert since(now, None) == now


def test_mappings_are_added_up_by_their_name() -> None:
    table = by_hand.table()
    lines = {str(line.key): line for line in by_name(table)}
    assert set(lines) == set(table.vmas.name)
    for name, line in lines.items():
        rows = np.array([one == name for one in table.vmas.name])
        for column in ("uss", "pss", "rss", "swap"):
            amounts = table.columns[column]
            told = None if amounts is None else int(amounts[rows].sum())
            assert getattr(line, column) == told, (name, column)
