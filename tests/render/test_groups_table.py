"""All cgroups as a tree."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from pagewalk.kernel.structs.memcgs import Memcgs
from pagewalk.model.columns import I64, take
from pagewalk.render import groups_table, view
from pagewalk.render.groups_table import answers, kept, next_group, tree
from pagewalk.system.containers import Name
from pagewalk.system.files import Sort
from pagewalk.system.group_table import GroupTable
from tests.render import written
from tests.render.written import MIB
from tests.system.by_hand import file, group_table, memcgs


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


def test_the_fullest_is_the_one_that_uses_most_of_its_limit() -> None:
    # 11 of 16 MiB are less than 5 of 6, and a limit of 0 or of a removed group is none
    table = group_table()
    limit = np.array([-1, 16 * MIB, 6 * MIB, 3 * MIB], np.int64)
    assert "Nearest to its limit is /db: 5120 KiB of 6144 KiB." in answers(limited(table, limit))
    for limits in ([-1, -1, -1, 3 * MIB], [-1, 0, -1, -1]):
        said = " ".join(answers(limited(table, np.array(limits, np.int64))))
        assert "Nearest" not in said


def limited(table: GroupTable, limit: I64) -> GroupTable:
    return table._replace(groups=replace(table.groups, limit=limit))


def test_without_limits_and_removed_groups_one_sentence_is_all() -> None:
    groups = memcgs(("/", -1, False, MIB, -1), ("/a", 0, False, MIB, -1))
    table = GroupTable(groups, take(group_table().amounts, np.array([0, 1])), ())
    assert list(answers(table)) == ["2 memory cgroups; 20480 KiB are charged in all."]


def test_of_removed_groups_inside_one_another_each_byte_counts_once() -> None:
    table = group_table()
    groups = memcgs(("/", -1, False, 20 * MIB, -1), ("/app", 0, True, 11 * MIB, -1),
                    ("/db", 0, False, 5 * MIB, -1), ("/app/old", 1, True, 3 * MIB, -1))
    assert list(answers(table._replace(groups=groups)))[1] == (
        "2 removed groups live on, with 11264 KiB found in RAM (their counters, which may be out of"
        " date, say 11264 KiB): pagewalk cgroups --dying says what keeps them.")


def test_what_keeps_a_removed_group_is_named() -> None:
    table = group_table()
    assert kept(table, table.keepers[0]) == (
        "/app/old was removed but is kept alive by 3072 KiB of /var/cache/x; 0 KiB of dentry"
        " objects")
    bare = table.keepers[0]._replace(files=table.keepers[0].files._replace(files=()), caches=())
    assert "nothing in RAM is charged to it any more" in kept(table, bare)
    moved = table._replace(amounts=take(table.amounts, np.array([0, 1, 2, 0])))
    assert kept(moved, bare) == (
        "/app/old was removed but is kept alive by 6144 KiB of anonymous memory, of processes that"
        " moved away")
    inside = table._replace(amounts=take(table.amounts, np.array([0, 1, 2, 1])))
    assert "because of groups below it" in kept(inside, bare._replace(row=1))


def test_of_what_keeps_a_group_the_largest_files_are_named_whatever_they_are() -> None:
    table = group_table()
    files = tuple(file(sort, f"/{number}", number * MIB) for number, sort in enumerate(
        (Sort.DELETED, Sort.DELETED, Sort.FILE, Sort.TMPFS, Sort.UNNAMED), 1))
    report = table.keepers[0].files._replace(files=files)
    text = kept(table, table.keepers[0]._replace(files=report, caches=()))
    assert [word for word in ("/1", "/2", "/3", "/4", "/5") if f" of {word}" in text] == [
        "/3", "/4", "/5"]
    assert text.index("5120 KiB of /5") < text.index("4096 KiB of /4") < text.index("of /3")


def test_sentences_about_removed_groups_are_in_the_order_of_the_table() -> None:
    table = group_table()
    one = table.keepers[0]
    both = table._replace(keepers=(one._replace(row=2), one._replace(row=3)))
    out = io.StringIO()
    groups_table.text(both, [(3, None), (2, None)], {}, out)
    assert out.getvalue().index("/app/old was removed") < out.getvalue().index("/db was removed")


def test_the_group_nearest_to_its_limit_is_the_next_to_look_at() -> None:
    table, rows = group_table(), [(0, 0), (2, 1)]
    assert list(next_group(table, rows)) == ["explain --cgroup /app"]
    without = table.groups.limit * 0 - 1
    groups = Memcgs(**{**vars(table.groups), "limit": without})
    assert list(next_group(table._replace(groups=groups), rows)) == ["explain --cgroup /db"]


def test_the_nearest_to_its_limit_is_called_what_a_person_calls_it() -> None:
    name = {1: Name("container", "web", "docker")}
    assert "Nearest to its limit is /app = container web: " in list(answers(group_table(), name))[1]


def test_on_a_narrow_terminal_amounts_are_hidden_before_names() -> None:
    out = written.Terminal()
    table = group_table()
    paths = ("/", "/a-name-of-thirty-characters-app", "/db", "/app/old")
    groups = Memcgs(**{**vars(table.groups), "path": paths})
    view("text", "cgroups")(table._replace(groups=groups), [(0, 0), (1, 1)], {}, out)
    assert "a-name-of-thirty-characters-app" in out.getvalue()
    assert "hidden, terminal too narrow: ANON, SHMEM, KERNEL\n" in out.getvalue()


def test_a_group_is_called_what_a_person_calls_it() -> None:
    text = written.write("text", "cgroups")
    assert "  app = pod web\n" in text
    assert "    old\n" in text


def test_each_sentence_has_its_rule_in_the_documentation() -> None:
    table = group_table()
    bare = table.keepers[0]._replace(files=table.keepers[0].files._replace(files=()), caches=())
    inside = table._replace(amounts=take(table.amounts, np.array([0, 1, 2, 1])))
    said = [*answers(table), kept(table, table.keepers[0]), kept(table, bare),
            kept(inside, bare._replace(row=1))]
    rules = ("are charged in all.", "Nearest to its limit is", "removed group", "is kept alive by",
             "lives on: nothing in RAM is charged to it any more",
             "lives on because of groups below it")
    page = (Path(__file__).parents[2] / "docs/commands/cgroups.md").read_text()
    documented = page.partition("## What stands out")[2].partition("## Options")[0]
    rows = [line for line in documented.splitlines() if line.startswith('| "')]
    assert len(rows) == len(said) == len(rules)
    for words in rules:
        assert [words in row.partition(" |")[0] for row in rows].count(True) == 1, words
        assert any(words in sentence for sentence in said), words
