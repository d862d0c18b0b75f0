"""All cgroups as a tree."""

from __future__ import annotations

import numpy as np

from pagewalk.model.columns import take
from pagewalk.render.groups_table import answers, kept, tree
from tests.render import written
from tests.system.by_hand import group_table, memcgs


def test_the_largest_of_each_level_comes_first_below_its_parent() -> None:
    groups = memcgs(("/", -1, False, 9, -1), ("/a", 0, False, 3, -1), ("/b", 0, False, 5, -1),
                    ("/a/x", 1, False, 2, -1), ("/b/y", 2, True, 1, -1))
    assert tree(groups, groups.usage) == [(0, 0), (2, 1), (1, 1), (3, 2)]
    assert tree(groups, groups.usage, removed=True) == [(0, 0), (2, 1), (4, 2), (1, 1), (3, 2)]


def test_a_deep_tree_is_no_problem() -> None:
    rows = [("/", -1, False, 0, -1), *((f"/{at}", at, False, 0, -1) for at in range(5000))]
    groups = memcgs(*rows)
    assert tree(groups, np.zeros(5001, np.int64))[-1] == (5000, 5000)


def test_the_sentences_name_the_fullest_and_those_that_live_on() -> None:
    assert list(answers(group_table())) == [
        "3 memory cgroups; 20480 KiB are charged in all.",
        "Nearest to its limit is /app: 11264 KiB of 16384 KiB.",
        "1 removed group lives on, with 3072 KiB found in RAM (its counter, which may be out of"
        " date, says 3072 KiB): pagewalk cgroups --dying says what keeps it.",
    ]


def test_what_keeps_a_removed_group_is_named() -> None:
    table = group_table()
    assert kept(table, table.keepers[0]) == (
        "/app/old was removed but is kept alive by /var/cache/x 3072 KiB; dentry 0 KiB")
    bare = table.keepers[0]._replace(files=table.keepers[0].files._replace(files=()), caches=())
    assert "nothing in RAM is charged to it any more" in kept(table, bare)
    moved = table._replace(amounts=take(table.amounts, np.array([0, 1, 2, 0])))
    assert kept(moved, bare) == (
        "/app/old was removed but is kept alive by anonymous memory 6144 KiB, of processes that"
        " moved away")
    inside = table._replace(amounts=take(table.amounts, np.array([0, 1, 2, 1])))
    assert "because of groups below it" in kept(inside, bare._replace(row=1))


def test_a_group_is_called_what_a_person_calls_it() -> None:
    text = written.write("text", "cgroups")
    assert "  app = pod web\n" in text
    assert "    old\n" in text
