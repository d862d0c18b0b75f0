"""The targets as processes: their states, the commands they obey, and how they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import kernel_says
from tests.targets import TARGETS, CannotProvoke, start

pytestmark = pytest.mark.live

KIB = 4  # of a base page
PATIENCE = 120.0


def smaps_of(fact: dict[str, Any]) -> kernel_says.VmaSays:
    return kernel_says.vma_at(kernel_says.read_smaps(fact["pid"]), fact["start"])


def test_odd_name_is_the_process_name() -> None:
    with start("odd_name") as running:
        comm = Path(f"/proc/{running.pid}/comm").read_bytes()
        assert comm == b"a) R\n(deleted)\n"
        assert running.facts["comm"]["name"].encode() + b"\n" == comm


@pytest.mark.parametrize("name", ["sleep", "top", "python", "java"])
def test_real_programs_run(name: str, prepare: Callable[..., None]) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        assert name in os.readlink(f"/proc/{running.pid}/exe")
        assert kernel_says.read_status_kib(running.pid)["VmRSS"] > 0
        assert kernel_says.read_rollup(running.pid)["Rss"] > 0


def test_threads_and_states() -> None:
    with start("threads", stopped=True) as running:
        assert kernel_says.read_status(running.pid)["Threads"] == "9"
    with start("leader_dead", stopped=True) as running:
        status = kernel_says.read_status(running.pid)
        assert status["State"].startswith("Z")
        assert kernel_says.read_maps(running.pid) == []
        assert kernel_says.read_maps(running.facts["memory"]["tid"]) != []
    with start("zombie", stopped=True) as running:
        dead = running.facts["zombie"]["pid"]
        assert running.pids == (running.pid, dead)
        assert kernel_says.read_status(dead)["State"].startswith("Z")


def test_shared_mm_is_mapped_once_although_two_processes_list_it() -> None:
    with start("shared_mm", stopped=True) as running:
        parent, child = running.facts["parent"], running.facts["child"]
        assert parent["pid"] != child["pid"]
        assert kernel_says.read_maps(parent["pid"]) == kernel_says.read_maps(child["pid"])
        assert smaps_of(child).fields["Pss"] == parent["anon"] * KIB


def test_other_users_processes() -> None:
    with start("nobody") as running:
        assert kernel_says.read_status(running.pid)["Uid"].split() == ["65534"] * 4
        assert os.stat(f"/proc/{running.pid}/maps").st_uid == 65534
    with start("undumpable") as running:
        assert kernel_says.read_status(running.pid)["Uid"].split() == ["65534"] * 4
        assert os.stat(f"/proc/{running.pid}/maps").st_uid == 0


def test_churn_changes_but_its_memory_does_not() -> None:
    with start("churn", 2) as running:
        seen: set[tuple[int, int]] = set()
        deadline = time.monotonic() + PATIENCE
        while len(seen) < 5 and time.monotonic() < deadline:
            arenas = [running.facts["arena0"], running.facts["arena1"]]
            vmas = kernel_says.read_maps(running.pid)
            # The part of the arenas that is mapped at this moment.
            seen |= {
                (vma.start, vma.end)
                for vma in vmas
                for arena in arenas
                if arena["start"] <= vma.start < arena["end"] and vma.perms == "rw-p"
            }
        assert len(seen) >= 5
        running.stop()
        assert smaps_of(running.facts["memory"]).fields["Rss"] == 32 * KIB


def test_mapper_measures_and_starts_again() -> None:
    with start("mapper", 1) as running:
        def answer() -> int:
            said = running.tell("stall")
            assert said["rounds"] == 0 or said["worst_ns"] > 0
            return int(said["rounds"])

        # Counts that were not reset would never fall: wait for an answer below an earlier one.
        most, deadline = answer(), time.monotonic() + PATIENCE
        while (now := answer()) >= most:
            most = now
            assert time.monotonic() < deadline


def test_targets_exit_and_exec_when_told() -> None:
    with start("plain") as running:
        running.tell("exit")
        assert not Path(f"/proc/{running.pid}").exists()
    with start("plain") as running:
        before = running.facts["plain"]["start"]
        running.tell("exec")
        assert os.readlink(f"/proc/{running.pid}/exe").endswith("sleep")
        assert all(vma.start != before for vma in kernel_says.read_maps(running.pid))


# Not counting zombies: they hold nothing, and init reaps them when it likes.
def alive(pid: int) -> bool:
    try:
        return not kernel_says.read_status(pid)["State"].startswith(("Z", "X"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_whole_family_is_stopped_resumed_and_killed_even_on_failure() -> None:
    with pytest.raises(KeyboardInterrupt), start("fork_cow", stopped=True) as running:
        assert len(running.pids) == 4
        states = [kernel_says.read_status(pid)["State"] for pid in running.pids]
        assert states == ["T (stopped)"] * 4
        running.resume()
        assert running.tell("anything") == {}
        raise KeyboardInterrupt
    assert not any(map(alive, running.pids))


def test_a_family_dies_with_the_test_run(tmp_path: Path) -> None:
    script = (
        "import os; from tests.targets import start\n"
        "with start('fork_cow', stopped=True) as r: print(*r.pids, flush=True); os.kill(0, 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
        # It cannot clean up after itself.
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    family = [int(word) for word in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL
    assert len(family) == 4
    deadline = time.monotonic() + PATIENCE
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, family))


def test_a_target_that_cannot_do_its_job_says_why() -> None:
    # 2^57 bytes: more than a process's address space, with four or five levels.
    with (
        pytest.raises(CannotProvoke, match="reservation: reserve address space: "),
        start("reservation", 1 << 17),
    ):
        pass
