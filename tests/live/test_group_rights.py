"""Those who may not see frames are told what counters say, what is withheld, and why."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pagewalk.proc.cgroups import find_hierarchy
from tests.live.bracket import look_again
from tests.live.charged import MIB, Group, anonymous, charging, group
from tests.live.command import Ran, pagewalk

pytestmark = pytest.mark.live
NOBODY = ("setpriv", "--reuid=65534", "--clear-groups")
OWN = f"pagewalk-rights-{os.getpid()}"
OLD = find_hierarchy().version == 1


def as_nobody(*words: object) -> Ran:
    ran = pagewalk(*words, before=NOBODY)
    assert ran.code == 3, ran.err
    assert "run as root" in ran.err or "run as root" in ran.out
    return ran


def test_a_group_is_explained_by_its_counters() -> None:
    with group(OWN) as where, charging(where, "anon", 40 * MIB):
        def look() -> dict[str, Any]:
            before = counters(where)
            found = as_nobody("explain", where.path, "--format", "json").json
            assert before == counters(where)
            assert {name: found["kinds"].get(name, 0) for name in before} == before
            return dict(found)

        found = look_again(look)
        text = as_nobody("explain", where.path).out
    # 64 pages a CPU may not be in memory.stat yet, and as many are not worth adding up
    # (memcg_vmstats_needs_flush)
    assert anonymous(found) >= 40 * MIB - 2 * 64 * 4096 * (os.cpu_count() or 1)
    assert sum(found["kinds"].values()) <= found["charged"]
    for withheld in ("pages", "caches", "mapped", "files", "headroom", "dying"):
        assert found[withheld] is None
    assert "are charged to it:" in text and "KiB anonymous memory" in text
    assert "partial: what each frame is used for" in " ".join(text.split())


def counters(where: Group) -> dict[str, int]:
    """Return what memory.stat says of it, by the name that we have for it."""
    if OLD:
        return {"anon": where.stat("total_rss") - where.stat("total_rss_huge"),
                "shmem": where.stat("total_shmem")}
    return {"anon": where.stat("anon") - where.stat("anon_thp"), "shmem": where.stat("shmem")}


def test_groups_below_are_told_as_well() -> None:
    with group(OWN) as above, group("child", above) as where, charging(where, "anon", MIB):
        found = as_nobody("explain", above.path, "--format", "json").json
    [child] = found["below"]
    assert child["path"] == where.path and child["charged"] >= MIB


def test_all_groups_by_their_counters() -> None:
    with group(OWN) as where, charging(where, "anon", 40 * MIB):
        ran = as_nobody("cgroups", "--format", "json")
        text = as_nobody("cgroups", "--limit", 1000).out
    [row] = [row for row in ran.json["cgroups"] if row["path"] == where.path]
    assert row["anon"] >= 40 * MIB - 2 * 64 * 4096 * (os.cpu_count() or 1)
    assert row["unmapped"] is None and row["reclaimable"] is None
    assert OWN in text and "removed groups are not visible" in " ".join(text.split())


def test_what_needs_frames_is_refused_with_the_remedy() -> None:
    ran = pagewalk("cgroups", "--dying", before=NOBODY)
    assert ran.code == 6
    assert "run as root" in ran.err
    for screen in ("--files", "--slab"):
        ran = pagewalk("ram", screen, before=NOBODY)
        assert ran.code == 6 and ran.err.count("run as root") == 1, ran.err
    ran = pagewalk("explain", "--cgroup", os.getpid(), "--source", "ebpf", before=NOBODY)
    assert ran.code in (1, 6)
    assert "run as root" in ran.err


def test_a_process_that_refuses_even_root_is_read_by_a_source_that_is_named() -> None:
    try:
        with open("/proc/1/maps"):
            pytest.skip("process 1 of this machine refuses nobody")
    except PermissionError:
        ran = pagewalk("explain", "--cgroup", 1, "--format", "json")
    assert ran.code == 3
    assert "1 could not be looked at; process 1: cannot read /proc/1/maps: refused" in ran.err
    assert "--source ebpf reads kernel memory" in ran.err
    assert 1 not in [process["pid"] for process in ran.json["processes"]]

    def look() -> None:
        named = pagewalk("explain", "--cgroup", 1, "--format", "json", "--source", "ebpf")
        assert named.code == 0, named.err
        [first] = [process for process in named.json["processes"] if process["pid"] == 1]
        assert first["anon"] > 0

    look_again(look, 3)


def test_what_processes_of_other_pid_namespaces_map_is_withheld() -> None:
    inside = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
    with group(OWN) as where, charging(where, "anon", 40 * MIB) as running:
        ran = pagewalk("explain", where.path, "--format", "json", before=inside)
        text = pagewalk("explain", where.path, before=inside).out
    assert ran.code == 3
    assert f"1 could not be looked at; this PID namespace does not show process {running.pid} of" \
        " the host; run there" in ran.err
    assert ran.json["mapped"] is None and ran.json["charged"] >= 40 * MIB
    assert "Its only process could not be looked at;" in text
