"""A run of live tests leaves nothing behind, however it ends; and leftovers are noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import left, machine
from tests.targets import build
from tests.targets.running import PATIENCE

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[1]


def test_leftovers_are_noticed(tmp_path: Path) -> None:
    with machine.alone():
        before = left.settings_now()
        assert left.changed(before, left.settings_now()) == []
        with machine.zram(16) as device, machine.thp():
            seen = left.changed(before, left.settings_now())
        assert any(line.startswith("/proc/swaps") and str(device) in line for line in seen)
        assert any("transparent_hugepage" in line for line in seen)
        assert left.changed(before, left.settings_now()) == []
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, left.MARK: "this"}) as process:
        try:
            assert left.processes("this") == [f"process {process.pid}: sleep 1000 "]
        finally:
            process.kill()
    assert left.lasting("this") == []


def test_the_socket_of_a_jvm_that_was_killed_is_noticed(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        (tmp_path / f".java_pid{process.pid}").touch()
        assert left.sockets(tmp_path) == set()
        process.kill()
    assert left.sockets(tmp_path) == {f"{tmp_path}/.java_pid{process.pid}"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_puts_the_machine_back(number: signal.Signals) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    with machine.alone():
        before = left.settings_now()
    run = subprocess.Popen(
        [*words, "tests/test_targets.py", "-k", "swap or hugetlb"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PAGEWALK_ZOO": str(build())}, start_new_session=True,
    )
    try:
        wait_for_target(run.pid)
        os.killpg(run.pid, number)  # as a terminal does: the targets get it too
        said, _ = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == pytest.ExitCode.INTERRUPTED, said
    assert "left something behind" not in said
    assert left.lasting(str(run.pid)) == []
    with machine.alone():
        assert left.changed(before, left.settings_now()) == []


def wait_for_target(pid: int) -> None:
    """Wait until a test run has started a target."""
    deadline = time.monotonic() + 2 * PATIENCE  # it may have to wait for another run
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not any(named(child, "zoo") for child in children.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def named(pid: str, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    except OSError:
        return False
