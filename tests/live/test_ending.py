"""A target that ends while being read is gone, exit code 5, whichever file shows it first.

From the moment that its memory is released until it is a zombie, which may take long, a process is
neither alive nor gone: /proc/PID/stat says R, the other files are empty or refuse.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import pagewalk as library
from pagewalk.model.errors import NoAddressSpace, ProcessGone
from pagewalk.proc.freeze import frozen
from pagewalk.proc.target import Target, open_target, thread_stats
from tests import kernel_says
from tests.live.bracket import working_sources
from tests.live.command import Ran, one_sentence, pagewalk, pagewalk_here
from tests.targets import start

pytestmark = pytest.mark.live

SOURCES = working_sources()
PATIENCE = 120.0
# How many attempts may fail to catch a process as it ends.
TRIES = 50
GONE, ZOMBIE, NEVER_SEEN = 5, "is a zombie", "does not exist"
ENDING = "exited|ended|is ending"
PF_EXITING = 0x00000004  # include/linux/sched.h

# This much memory takes tens of milliseconds to free.
MIB = 192
HOLDER = """
import mmap, sys
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
area = mmap.mmap(-1, int(sys.argv[1]) << 20, flags=flags)
print("ready", flush=True)
sys.stdin.read()
"""

# Every file of a process that a source or a command opens, as proc/refusals.py lists them.
FILES = ("stat", "status", "statm", "maps", "smaps", "smaps_rollup", "pagemap", "mem", "mountinfo")
LINKS = ("exe", "root")  # opened, but not read as text


@contextmanager
def holder(mib: int = MIB) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-S", "-c", HOLDER, str(mib)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def phase(target: Target) -> str:
    """Return "alive", "ending", "zombie" or "reaped"."""
    with suppress(ProcessGone):
        words = target.read("stat").rpartition(b")")[2].split()
        if words[0] in (b"Z", b"X"):
            return "zombie"
        return "ending" if int(words[6]) & PF_EXITING else "alive"
    return "reaped"


def ask_all(target: Target) -> dict[str, str]:
    """Return for each file whether it returned text, nothing, or that the process is gone."""
    said = {}
    for name in FILES:
        try:
            said[name] = "text" if target.read(name) else "nothing"
        except ProcessGone:
            said[name] = "gone"
    return said


def test_every_file_of_an_ending_process_says_so_or_is_empty() -> None:
    seen: dict[str, set[str]] = {"ending": set(), "zombie": set(), "reaped": set()}
    for _ in range(TRIES):
        with holder() as process:
            target = open_target(process.pid)
            process.kill()
            at = phase(target)
            while at != "zombie":
                said, after = ask_all(target), phase(target)
                if at == after != "alive":
                    seen[at] |= {f"{name} {word}" for name, word in said.items()}
                at = after
            seen["zombie"] |= {f"{name} {word}" for name, word in ask_all(target).items()}
            process.wait(PATIENCE)
            seen["reaped"] |= {f"{name} {word}" for name, word in ask_all(target).items()}
            target.close()
        if seen["ending"]:
            break
    assert seen["reaped"] == {f"{name} gone" for name in FILES}
    for at in ("ending", "zombie"):
        for name in ("maps", "smaps", "smaps_rollup", "pagemap", "mem"):
            assert f"{name} text" not in seen[at]
        assert {"stat text", "status text", "statm text"} <= seen[at]
    assert "mountinfo gone" in seen["zombie"]


def test_the_files_in_this_test_are_those_that_pagewalk_reads() -> None:
    found = set()
    for path in Path(library.__file__).parent.rglob("*.py"):
        text = path.read_text()
        found |= set(re.findall(r"target\.(?:open|read)\(\"([a-z_]+)\"", text))
        for names in re.findall(r"target\.keep\(([^)]*)\)", text):
            found |= set(re.findall(r"\"([a-z_]+)\"", names))
    assert found and found <= {*FILES, *LINKS}


def test_a_process_that_has_ended_leads_to_no_program_and_no_root() -> None:
    with holder() as process:
        target = open_target(process.pid)
        process.kill()
        while phase(target) != "zombie":
            time.sleep(0.001)
        for _ in range(2):
            for name in LINKS:
                with pytest.raises(ProcessGone):
                    target.open(name)
            process.wait(PATIENCE)
        target.close()


def test_an_ending_process_cannot_be_opened_and_is_gone() -> None:
    for _ in range(TRIES):
        with holder() as process:
            target = open_target(process.pid)
            process.kill()
            said = []
            while (at := phase(target)) != "zombie":
                with suppress(NoAddressSpace):  # a zombie by now
                    try:
                        open_target(process.pid).close()
                    except ProcessGone:
                        said.append(at)
            target.close()
            with pytest.raises(NoAddressSpace, match=ZOMBIE):
                open_target(process.pid)
        if "ending" in said:
            return
    raise AssertionError("no process was seen while it was ending")


COMMANDS = [
    ("show",), ("show", "--counts"), ("show", "--freeze"), ("maps",), ("pages", "--vma", "heap"),
    ("explain",), ("check",), ("vtop", "stack-8"),
]


def words_for(command: tuple[str, ...], pid: int, source: str) -> list[str]:
    name, *rest = command
    against = ["--against", "ebpf" if source == "procfs" else "procfs"] if name == "check" else []
    return [name, str(pid), *rest, "--source", source, *against]


def timed(command: tuple[str, ...], source: str) -> tuple[Ran, float]:
    """Run a command on a process that is not killed; return how it ended and how long it took."""
    with holder() as process:
        began = time.monotonic()
        return pagewalk_here(*words_for(command, process.pid, source)), time.monotonic() - began


def killed_before(seconds: float, command: tuple[str, ...], source: str) -> Ran:
    """Run a command on a process that was killed ``seconds`` ago and has not been reaped."""
    with holder() as process:
        process.kill()
        time.sleep(seconds)
        return pagewalk_here(*words_for(command, process.pid, source))


def killed_after(seconds: float, command: tuple[str, ...], source: str) -> Ran:
    """Run a command on a process that is killed and reaped ``seconds`` after the command began."""
    with holder() as process:

        def kill() -> None:
            time.sleep(seconds)
            process.kill()
            process.wait(PATIENCE)

        killer = threading.Thread(target=kill)
        killer.start()
        ran = pagewalk_here(*words_for(command, process.pid, source))
        killer.join()
    return ran


def able(command: tuple[str, ...], source: str) -> bool:
    return source != "procfs" or command[0] not in ("vtop", "check")


@pytest.mark.parametrize(
    ("command", "source"),
    [(command, source) for command in COMMANDS for source in SOURCES if able(command, source)],
    ids=lambda words: words if isinstance(words, str) else " ".join(words),
)
def test_a_command_on_a_process_that_is_killed(command: tuple[str, ...], source: str) -> None:
    for _ in range(TRIES):
        whole, took = timed(command, source)
        ending = [killed_before(seconds, command, source) for seconds in (0.01, 0.001)]
        for ran in ending:
            check_end(ran, whole.code, ENDING)
        reaped = [killed_after(took * part, command, source) for part in (0, 0.1, 0.25, 0.5, 0.75)]
        for ran in reaped:  # perhaps before the command came to look for it
            check_end(ran, whole.code, f"{ENDING}|{NEVER_SEEN}")
        if any(ran.code == GONE and NEVER_SEEN not in ran.err for ran in ending + reaped):
            return
    raise AssertionError("no process ended while it was looked at")


def check_end(ran: Ran, whole: int, how: str) -> None:
    # A zombie is reported as one; a process killed after all reads was still there.
    if ran.code == GONE:
        assert re.search(rf"^pagewalk: process \d+ ({how})", ran.err, re.M), ran.err
    else:
        assert ran.code in (0, whole) or (ran.code == 1 and ZOMBIE in ran.err), ran.err


# ---- --freeze

# posix_spawn() waits in the kernel until its child execs; here the child first waits for a FIFO.
SPAWNER = """
import os, sys
print("ready", flush=True)
action = (os.POSIX_SPAWN_OPEN, 9, sys.argv[1], os.O_RDONLY, 0)
os.posix_spawn("/bin/true", ["true"], {}, file_actions=[action])
"""


def test_a_thread_that_does_not_stop_is_named(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = [sys.executable, "-S", "-c", SPAWNER, str(fifo)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            deadline = time.monotonic() + PATIENCE
            while kernel_says.read_status(process.pid)["State"][0] != "D":
                assert time.monotonic() < deadline
                time.sleep(0.002)
            ran = pagewalk("show", process.pid, "--freeze")
        finally:
            process.kill()
            with open(os.open(fifo, os.O_RDWR), "wb"):
                process.wait(PATIENCE)
    assert ran.code == 1
    # One sentence: it was not stopped, so there is no note on how long it was stopped.
    assert re.fullmatch(
        rf"process {process.pid} did not stop within 5 s and has been resumed: its thread"
        rf" {process.pid}"
        r" \([^)]+\) is waiting inside the kernel, where no signal is taken \(state D\);"
        r" walk it without --freeze",
        one_sentence(ran),
    )


def test_a_process_that_ends_while_being_stopped_is_gone() -> None:
    # Its threads no longer stop: they run until they are gone.
    with holder() as process:
        target = open_target(process.pid)
        process.kill()
        with pytest.raises(ProcessGone):
            while True:
                frozen_once(target)
        process.wait(PATIENCE)
        with pytest.raises(ProcessGone):
            thread_stats(target)
        target.close()


def frozen_once(target: Target) -> None:
    with frozen(target):
        pass


def test_the_threads_are_those_of_the_process() -> None:
    with start("threads", stopped=True) as running:
        target = open_target(running.pid)
        found = {tid: stat.state for tid, stat in thread_stats(target)}
        target.close()
        assert set(found) == {int(tid) for tid in os.listdir(f"/proc/{running.pid}/task")}
    assert set(found.values()) == {"T"}
