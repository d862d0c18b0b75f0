"""The path in /proc, the descriptor for signals and the kernel's task are one process.

In a PID namespace with its parent's /proc a number means two processes. Neither may be shown
instead of the other, and only the requested one may be stopped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.structs.task import find_task, pid_behind, task_of
from pagewalk.proc.freeze import frozen
from pagewalk.proc.target import open_target
from tests import kernel_says
from tests.live.bracket import working_sources
from tests.live.command import one_sentence, pagewalk, run
from tests.live.inside import Inside, inside
from tests.targets import asleep, start

pytestmark = pytest.mark.live

SOURCES = working_sources()
NAME = f"inner{os.getpid()}"  # that no process of another test run has


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return sleep(1) under a name that no other process has."""
    copy = tmp_path / NAME
    shutil.copy(shutil.which("sleep") or "/bin/sleep", copy)
    return copy


@pytest.fixture
def victim() -> Iterator[int]:
    """Return a process outside the namespace; it must never be stopped."""
    with subprocess.Popen(["sleep", "3600"]) as process:
        try:
            asleep(process.pid, "sleep")
            yield process.pid
            # If it had been stopped and resumed, its context switches would show it.
            assert kernel_says.read_status(process.pid)["State"][0] == "S"
        finally:
            process.kill()


def switches(pid: int) -> str:
    """Return how often a process has run: stopping a sleeping process makes it run again."""
    status = kernel_says.read_status(pid)
    return status["voluntary_ctxt_switches"] + " " + status["nonvoluntary_ctxt_switches"]


def free_number() -> int:
    """Return a pid that /proc does not list, and that a new namespace may use."""
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    return next(pid for pid in range(most - 1, 1, -1) if not Path(f"/proc/{pid}").exists())


def check_shown(found: Inside, source: str, *args: object) -> None:
    """Check that the process inside is the one that is shown, by the kernel's own number."""
    ran = found.pagewalk("show", *args, "--source", source, "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.json["process"]["pid"] == found.listed
    assert ran.json["process"]["name"] == NAME
    rss = 1024 * sum(vma.fields["Rss"] for vma in kernel_says.read_smaps(found.listed))
    assert ran.json["totals"]["rss"] == rss > 0
    assert sum(vma["rss"] for vma in ran.json["vmas"]) == rss


COMMANDS = ("show", "maps", "pages", "explain", "check", "vtop")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pid_that_means_two_processes_is_refused(
    command: str, victim: int, program: Path
) -> None:
    words = ("stack-8",) if command == "vtop" else ()
    with inside(victim, program) as found:
        assert found.pid == victim != found.listed
        both = (victim, found.listed)
        before = [switches(pid) for pid in both]
        for options in ((), ("--freeze",)):
            ran = found.pagewalk(command, victim, *words, *options)
            assert ran.code == 2
            says = one_sentence(ran)
            assert f"'{victim}' may be two processes" in says
            assert f"there it is (sleep), here ({NAME}), which /proc shows as {both[1]}" in says
        assert [switches(pid) for pid in both] == before


@pytest.mark.parametrize("source", SOURCES)
def test_a_pid_that_only_the_caller_knows_is_that_process(
    source: str, program: Path
) -> None:
    with inside(free_number(), program) as found:
        asleep(found.listed, NAME)
        check_shown(found, source, found.pid)
        check_shown(found, source, found.pid, "--freeze")
        asleep(found.listed, NAME)


@pytest.mark.parametrize("source", SOURCES)
def test_a_pid_that_only_proc_knows_is_that_process(
    source: str, program: Path
) -> None:
    with inside(0, program) as found:
        asleep(found.listed, NAME)
        check_shown(found, source, found.listed)
        check_shown(found, source, found.listed, "--freeze")
        asleep(found.listed, NAME)


@pytest.mark.parametrize("source", SOURCES)
def test_a_name_is_never_two_processes(source: str, victim: int, program: Path) -> None:
    with inside(victim, program) as found:
        asleep(found.listed, NAME)
        before = switches(victim)
        check_shown(found, source, NAME)
        check_shown(found, source, NAME, "--freeze")
        asleep(found.listed, NAME)
        assert switches(victim) == before
        ran = found.pagewalk("vtop", NAME, "stack-8", "--source", source)
        assert ran.code == (1 if source == "procfs" else 0), ran.err
        assert source == "procfs" or f"process {found.listed} ({NAME})" in ran.out


def test_maps_all_counts_swap_users_in_such_a_namespace(program: Path) -> None:
    with inside(0, program) as found:
        ran = found.pagewalk("maps", NAME, "--all", "--format", "json")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("source", SOURCES)
def test_a_process_outside_the_namespace_is_shown_but_cannot_be_stopped(
    source: str, victim: int, program: Path
) -> None:
    with inside(0, program) as found:
        before = switches(victim)
        shown = found.pagewalk("maps", victim, "--source", source, "--format", "json")
        ran = found.pagewalk("show", victim, "--source", source, "--freeze")
        assert switches(victim) == before
    assert shown.json["process"] == {"pid": victim, "name": "sleep", "exe": shutil.which("sleep")}
    assert ran.code == 6
    assert "it is outside the PID namespace of this command" in one_sentence(ran)


def test_the_command_itself_is_not_found_by_its_name(program: Path) -> None:
    # Inside, its own number belongs to another process in /proc.
    with inside(0, program) as found:
        ran = found.pagewalk("show", "no such name")
        own = found.pagewalk()
    assert one_sentence(ran).startswith("no process is called 'no such name'")
    assert own.code in (0, 3), own.err  # some process may refuse everybody


OUTSIDE = 'sleep 3600 & echo $!; wait'


def test_a_proc_that_does_not_show_us_is_refused() -> None:
    # The reverse case: the /proc of a namespace that this command is not in.
    words = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", OUTSIDE)
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            inner = int(process.stdout.readline())
            # unshare forks the shell that sees the new /proc.
            tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            enter = ("nsenter", "--mount", "--target", tasks[0], f"--wdns={os.getcwd()}")
            for args in (("show", inner), ("show", "sleep"), ("maps", 1, "--freeze"), ()):
                ran = pagewalk(*args, before=enter)
                assert ran.code == 1
                assert "belongs to a PID namespace that we are not in" in one_sentence(ran)
            doctor = pagewalk("doctor", before=enter)
            assert (doctor.code, doctor.err) == (0, "")
            assert "PID namespace that we are not in" in " ".join(doctor.out.split())
        finally:
            process.kill()


def test_a_missing_proc_is_reported() -> None:
    # Not umount: what lies under /proc in a guest is the host's.
    before = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
    ran = pagewalk("show", os.getpid(), before=before)
    assert (ran.code, one_sentence(ran)) == (
        1, "/proc is not mounted: no process can be seen; mount -t proc proc /proc"
    )


# ---- the library


API = """
import os, sys
import pagewalk
victim = int(sys.argv[1])
assert os.getpid() == 1
try:
    pagewalk.walk(os.getpid())
except pagewalk.BadTarget as error:
    print(sorted(number for number, _ in error.candidates)[0], len(error.candidates))
"""


def test_the_library_refuses_it_too() -> None:
    done = run("unshare", "--pid", "--fork", sys.executable, "-c", API, os.getpid())
    assert done.out.split() == ["1", "2"]


def test_the_kernels_task_is_that_of_the_directory() -> None:
    with closing(open_bpf()) as kernel, start("leader_dead") as running:
        for pid in (os.getpid(), os.getppid(), running.pid):
            target = open_target(pid)
            try:
                tid = int(os.readlink(f"/proc/self/fd/{target.dirfd}").rpartition("/")[2])
                task = task_of(kernel, pid_behind(kernel, target.dirfd), pid)
                assert task._replace(pid=0) == find_task(kernel, tid)._replace(pid=0)
            finally:
                target.close()


def test_a_stopped_process_is_the_one_behind_the_directory() -> None:
    with start("leader_dead") as running:
        target = open_target(running.pid)
        assert target.dirfd != target.pidfd
        with frozen(target) as stopped:
            assert stopped
            states = {
                kernel_says.read_status(int(tid))["State"][0]
                for tid in os.listdir(f"/proc/{running.pid}/task")
            }
            assert states == {"T", "Z"}
        target.close()
        running.process.send_signal(signal.SIGCONT)
