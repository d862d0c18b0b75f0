"""Two containers, each with a PID namespace of its own, as one set; and share inside of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live import engines
from tests.live.bracket import working_sources
from tests.live.command import PAGEWALK, pagewalk_here, run
from tests.live.engines import CGROUPS, OLD, OWN, Den, Started
from tests.live.family_sums import Look, check_matrix, look_until_right
from tests.live.programs import members, wait
from tests.live.test_held import settled
from tests.targets import stop

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]

MEMORY = CGROUPS / "memory" if OLD else CGROUPS
# A shell, another that it has forked and not executed, and the sleep of each.
LOOP = "while sleep 3600; do :; done"
FORKS = ("/bin/busybox", "sh", "-c", f"({LOOP}) & {LOOP}")
NAMES = ("one", "two")
# A /proc of the container's namespace, for a command from the machine's file system.
ENTERED = ('mount -t proc proc /proc && exec "$@"', "sh")


@pytest.fixture(scope="module")
def den(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Den]:
    with engines.den(tmp_path_factory.mktemp("den")) as den:
        yield den


@pytest.fixture
def both(den: Den) -> Iterator[dict[str, Started]]:
    """Run two containers, all of whose processes stand still."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(engines.runc(den, name, args=FORKS)) for name in NAMES}
        wait(lambda: all(len(running(one)) == 4 for one in found.values()), "all to have started")
        for one in found.values():
            stop(*running(one))
        yield found


def group(started: Started) -> Path:
    return MEMORY / started.group[1:]


def running(started: Started) -> list[int]:
    """Return the processes of a container, once all have become what they are to be."""
    pids = members(group(started))
    return pids if sum(comm(pid) == "sleep" for pid in pids) == 2 else []


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def seen_as(ask: tuple[str, ...], *names: Started) -> Look:
    """Look at all processes of containers, by share with these words."""
    pids = [pid for started in names for pid in running(started)]
    return look_until_right(pids, lambda: pagewalk_here("share", *ask, "--format", "json"))


def test_two_containers_are_one_set_that_frees_what_both_cgroups_lose(
    both: dict[str, Started]
) -> None:
    groups = {name: group(started) for name, started in both.items()}
    charged = settled(groups)
    found = seen_as(("--cgroup", f"/{OWN}/runc"), *both.values())
    check_matrix(found)
    # Their programs are one file: what one of them maps, the others do too.
    assert found.found["rss_sum"] > 3 * found.found["held"]
    children = {row["pid"]: row["parent"] for row in found.found["children"]}
    assert {*children.values()} == {started.pid for started in both.values()}
    for started in both.values():
        os.kill(started.pid, signal.SIGKILL)  # the first of a namespace takes all with it
    wait(lambda: not any(map(members, groups.values())), "both to end")
    after = settled(groups)
    lost = sum(charged[name]["held"] - after[name]["held"] for name in groups)
    assert found.found["freed"] == lost


def test_mappers_outside_of_a_container_are_counted_though_not_seen(
    both: dict[str, Started]
) -> None:
    one = both["one"]
    pids = running(one)
    words = ("nsenter", f"--target={one.pid}", "--pid", "--", "unshare", "--mount", "sh", "-c",
             *ENTERED, *PAGEWALK, "share", "--all")
    # nsenter stays, and what follows it becomes pagewalk.
    within = look_until_right(pids, lambda: run(*words, "--format", "json"), started=2,
                              renumbered=True)
    assert len(within.found["members"]) == len(pids)
    on_host = seen_as(("--cgroup", one.group), one)
    assert sorted(row["pid"] for row in within.found["members"])[0] == 1
    for key in ("held", "freed", "rss_sum", "uss_sum"):
        assert within.found[key] == on_host.found[key], key
    # The other container maps the same program, from which nothing was copied.
    assert within.found["elsewhere"]["bytes"] > on_host.found["held"] / 2
    assert "others that this /proc does not show" in within.found["elsewhere"]["by"][-1]
    assert on_host.found["elsewhere"]["by"] == ["processes that are not in the set"]
    screen = " ".join(run(*words).out.split())
    assert f"mapped by others too: {within.found['elsewhere']['bytes'] >> 10} KiB of what" in screen
