"""Metrics: bounded series, names that anybody may choose, and nothing where nothing is known."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pagewalk.model.columns import Withheld
from pagewalk.render.metrics import METRICS, NAMELESS, OTHER, Family, families, of_when, rooms
from pagewalk.system.containers import Name
from pagewalk.system.metered import Counts, Metered, Took
from pagewalk.system.top import Line
from tests.render.written import HOSTILE
from tests.system.by_hand import MIB, group_table, ram

NAMES = {"/app": Name("container", "web\x1b", "docker", "0" * 64, "shop", "prod", "web\x1b"),
         "/db": Name("unit", "db.service"), "/gone": Name("", "gone")}


def line(name: str, uss: int | None, rss: int = 9) -> Line:
    return Line(name, name, 1, uss, uss, rss, 0)


def metered(*programs: Line, unwalked: tuple[Line, ...] = (), frames: bool = True) -> Metered:
    table = group_table()
    if not frames:
        table = table._replace(amounts=replace(table.amounts, unmapped=None, reclaimable=None))
    return Metered(
        "ebpf", {"program": programs, "user": (line("root", 5),), "cgroup": (line("/app", 5),)},
        {"program": unwalked, "user": (), "cgroup": ()}, Counts(3, 1, 0, 2, 0), 1_500_000,
        ram(frames=frames), table, NAMES, Took(0.5, 0.25),
        (Withheld("something", "of process 31337", partial=True),))


def told(found: Metered, limit: int = 20) -> dict[str, Family]:
    made = [*families(found, limit, "1"), *of_when(100.5, 7)]
    assert len({one.name for one in made}) == len(made)
    return {one.name: one for one in made}


def uss(found: Metered, limit: int = 20) -> dict[str, float]:
    return {key[0]: value
            for key, value in told(found, limit)["pagewalk_program_uss_bytes"].values.items()}


def test_all_metrics_are_there_with_the_labels_that_they_are_said_to_have() -> None:
    made = told(metered(line("a", 1)))
    assert set(made) == set(METRICS)
    for name, one in made.items():
        assert all(len(key) == len(METRICS[name].labels) for key in one.values), name


@pytest.mark.parametrize("name", METRICS)
def test_names_have_the_units_that_prometheus_wants_and_only_counters_end_in_total(
    name: str,
) -> None:
    assert re.fullmatch(r"pagewalk(_[a-z]+)+", name)
    assert not re.search("_(kb|kib|ms|ns|percent)$", name)
    assert METRICS[name].says.endswith(".") and "\n" not in METRICS[name].says
    assert name.endswith("_total") == (name == "pagewalk_walks_total")


def test_the_largest_have_series_and_the_rest_is_one_more() -> None:
    found = metered(line("a", 1), line("b", 4), line("c", 2), line("d", 3))
    assert uss(found, 2) == {"b": 4, "d": 3, OTHER: 3}
    assert told(found, 2)["pagewalk_program_processes"].values["other",] == 2
    assert told(found, 2)["pagewalk_hidden"].values["program",] == 2
    assert uss(found, 4) == {"b": 4, "d": 3, "c": 2, "a": 1}
    assert told(found, 4)["pagewalk_hidden"].values["program",] == 0


def test_one_that_is_called_as_the_rest_is_in_it() -> None:
    assert uss(metered(line("a", 1), line(OTHER, 9), line("c", 2)), 1) == {"c": 2, OTHER: 10}
    assert uss(metered(line(OTHER, 9))) == {OTHER: 9}


def test_any_name_is_a_label_and_two_that_look_alike_are_one_series() -> None:
    names = [HOSTILE, "a\nb", r"a\nb", "\udcff", "", "\u202e"]
    found = uss(metered(*(line(name, 1) for name in names)))
    assert all(name.isprintable() for name in found)
    assert found[r"a\nb"] == 2 and found[r"\udcff"] == 1 and found[NAMELESS] == 1
    assert sum(found.values()) == len(names)


def test_what_was_not_walked_has_series_of_its_own_and_no_zero_elsewhere() -> None:
    made = told(metered(line("a", 5), unwalked=(
        Line("a", "a", 2, None, None, 30, None), Line("b", "b", 1, None, None, 40, None))))
    assert made["pagewalk_program_uss_bytes"].values == {("a",): 5}
    assert made["pagewalk_program_processes"].values == {("a",): 1}
    assert made["pagewalk_program_unwalked_processes"].values == {("a",): 2, ("b",): 1}
    assert made["pagewalk_program_unwalked_rss_bytes"].values == {("a",): 30, ("b",): 40}
    withheld = made["pagewalk_withheld"].values
    assert withheld["pagewalk_program_uss_bytes",] == 1
    assert withheld["pagewalk_user_uss_bytes",] == 0


def test_what_is_withheld_has_no_series() -> None:
    made = told(metered(line("a", None), line("b", 2), line("c", None)), 1)
    assert made["pagewalk_program_uss_bytes"].values == {("b",): 2}  # nor has the sum of the rest
    assert made["pagewalk_program_rss_bytes"].values == {("b",): 9, (OTHER,): 18}
    withheld = made["pagewalk_withheld"].values
    assert withheld["pagewalk_program_uss_bytes",] == 1
    assert withheld["pagewalk_program_rss_bytes",] == 0


def test_without_frames_nothing_is_said_of_what_only_they_tell() -> None:
    made = told(metered(line("a", 1), frames=False))
    gone = ("pagewalk_cgroup_reclaimable_bytes", "pagewalk_cgroup_headroom_bytes",
            "pagewalk_cgroups_removed", "pagewalk_ram_reclaimable_bytes")
    for name in gone:
        assert made[name].values == {} and made["pagewalk_withheld"].values[name,] == 1
    assert made["pagewalk_ram_bytes"].values["processes", "anon"] == 5 * MIB
    assert ("processes", "ksm") not in made["pagewalk_ram_bytes"].values


def test_without_cgroups_there_is_no_series_of_any() -> None:
    found = metered(line("a", 1))
    made = told(found._replace(groups=None, lines={"program": found.lines["program"]}))
    mute = [name for name in METRICS if name.startswith("pagewalk_cgroup")]
    assert [name for name in mute if made[name].values] == []
    withheld = made["pagewalk_withheld"].values
    assert withheld["pagewalk_cgroup_charged_bytes",] == withheld["pagewalk_cgroup_uss_bytes",] == 1


def test_ram_by_kind_adds_up_and_a_kind_of_which_there_is_none_is_zero() -> None:
    made = told(metered())["pagewalk_ram_bytes"].values
    assert sum(made.values()) == 24 * MIB
    assert made["processes", "ksm"] == 0
    assert ("cache", "file") not in made  # a sum of others


def test_cgroups_nearest_to_their_limits_come_first() -> None:
    made = told(metered(), 2)
    charged = made["pagewalk_cgroup_charged_bytes"].values
    assert charged == {("/app",): 11 * MIB, ("/",): 20 * MIB}
    assert made["pagewalk_cgroup_limit_bytes"].values == {("/app",): 16 * MIB}
    assert made["pagewalk_hidden"].values["charged_cgroup",] == 1  # not the one that was removed


def test_a_charge_is_what_was_found_and_a_remainder() -> None:
    made = told(metered())
    found, rest = (made[f"pagewalk_cgroup_{name}_bytes"].values for name in ("found", "remainder"))
    charged = made["pagewalk_cgroup_charged_bytes"].values
    for (path,) in rest:
        assert charged[path,] == rest[path,] + sum(
            amount for key, amount in found.items() if key[0] == path)
    assert set(rest) == {("/app",), ("/db",)}  # the root has no counter of its own


def test_a_cgroup_that_is_shown_says_what_it_is_called() -> None:
    assert told(metered())["pagewalk_cgroup_info"].values == {
        ("/app", "container", r"web\x1b", "prod", "shop", r"web\x1b"): 1,
        ("/db", "unit", "db.service", "", "", ""): 1}


def test_headroom_is_that_of_the_nearest_limit_above() -> None:
    table = group_table()
    limit = np.array([-1, 16 * MIB, -1, -1], np.int64)
    assert rooms(table, [0, 1, 2]) == {1: (16 - 11 + 5) * MIB}
    limit[0], limit[2] = 21 * MIB, 6 * MIB  # of which 20 are used, and 8 could go; 5, and none
    nested = table._replace(groups=replace(table.groups, limit=limit))
    assert rooms(nested, [0, 1, 2]) == {0: 9 * MIB, 1: 9 * MIB, 2: MIB}


def test_what_became_of_processes_and_how_long_it_took() -> None:
    made = told(metered())
    assert made["pagewalk_processes"].values == {
        ("walked",): 3, ("refused",): 1, ("failed",): 0, ("ended",): 2, ("left",): 0}
    assert made["pagewalk_stall_seconds"].values == {(): 0.0015}
    assert made["pagewalk_walk_seconds"].values == {
        ("processes",): 0.5, ("ram",): 0.25}
    assert made["pagewalk_walks_total"].values == {(): 7}
    assert made["pagewalk_last_walk_timestamp_seconds"].values == {(): 100.5}


def test_no_label_says_why_something_is_withheld() -> None:
    labels = [word for one in told(metered()).values() for key in one.values for word in key]
    assert not any("31337" in word for word in labels)
