"""--freeze stops the target during the walk, and it is resumed however pagewalk ends."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pagewalk.proc import freeze
from pagewalk.proc.freeze import frozen_for
from pagewalk.proc.target import open_target
from tests import kernel_says
from tests.live.command import begin, end, pagewalk
from tests.targets import Running, start

pytestmark = pytest.mark.live

PATIENCE = 120.0
# A line of about 60 bytes per page: far more than fits in a pipe, so pagewalk blocks in mid-walk.
RUNS = 20000
STOPPED = r"process (\d+) was stopped for \d+\.\d ms"


def states(pid: int) -> set[str]:
    """Return the state letters of all threads."""
    tids = os.listdir(f"/proc/{pid}/task")
    return {kernel_says.read_status(int(tid))["State"][0] for tid in tids}


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.005)


def check_goes_on(running: Running) -> None:
    wait(lambda: "T" not in states(running.pid), "the target to go on")
    assert running.tell("are you there") == {}


def frozen_walk(running: Running, *options: str) -> subprocess.Popen[bytes]:
    """Start a walk that cannot end, because nothing reads it; return once the target is stopped."""
    process = begin("pages", running.pid, "--freeze", *options)
    assert process.stdout is not None
    process.stdout.readline()
    assert states(running.pid) == {"T"}
    return process


def test_the_target_is_stopped_and_resumed() -> None:
    with start("runs", RUNS) as running:
        process = frozen_walk(running)
        ran = end(process)
        check_goes_on(running)
    assert ran.code == 0
    found = re.search(STOPPED, ran.err)
    assert found and int(found[1]) == running.pid


def test_every_thread_is_stopped() -> None:
    with start("threads") as running:
        assert len(os.listdir(f"/proc/{running.pid}/task")) == 9
        ran = end(frozen_walk(running, "--format", "log"))
        check_goes_on(running)
    assert ran.code == 0


@pytest.mark.parametrize(
    "number, code, says",
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 128 + signal.SIGTERM, ""),
        (signal.SIGHUP, 128 + signal.SIGHUP, ""),
        (signal.SIGKILL, -signal.SIGKILL, None),
    ],
)
def test_a_signal_to_pagewalk_resumes_the_target(
    number: signal.Signals, code: int, says: str | None
) -> None:
    with start("runs", RUNS) as running:
        process = frozen_walk(running)
        process.send_signal(number)
        if number == signal.SIGKILL:  # before its pipe is read: the watching child resumes it
            check_goes_on(running)
        ran = end(process)
        check_goes_on(running)
    assert ran.code == code
    if says is not None:
        assert says in ran.err
        assert re.search(STOPPED, ran.err)


def test_killing_its_whole_process_group_resumes_the_target() -> None:
    with start("runs", RUNS) as running:
        process = begin("pages", running.pid, "--freeze", process_group=0)
        assert process.stdout is not None
        process.stdout.readline()
        assert states(running.pid) == {"T"}
        os.killpg(process.pid, signal.SIGKILL)
        assert end(process).code == -signal.SIGKILL
        check_goes_on(running)


def test_an_error_in_the_middle_resumes_the_target() -> None:
    with start("runs", RUNS) as running:
        ran = pagewalk("pages", running.pid, "--freeze", "--output", "/dev/full")
        check_goes_on(running)
    assert ran.code == 1
    assert "No space left on device" in ran.err
    assert re.search(STOPPED, ran.err)


def test_a_reader_that_leaves_resumes_the_target() -> None:
    with start("runs", RUNS) as running:
        process = frozen_walk(running)
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        ran = end(process)
        check_goes_on(running)
    assert ran.code == 0


def test_a_target_that_is_killed_while_stopped_is_gone() -> None:
    with start("runs", RUNS) as running:
        process = frozen_walk(running)
        running.process.kill()
        running.process.wait(PATIENCE)
        ran = end(process)
    assert ran.code == 5
    assert f"process {running.pid} " in ran.err


def test_a_process_that_was_already_stopped_stays_stopped() -> None:
    with start("plain", stopped=True) as running:
        ran = pagewalk("show", running.pid, "--freeze")
        assert states(running.pid) == {"T"}
    assert ran.code == 0
    assert "was stopped" not in ran.err


def test_quiet_does_not_report_the_stop() -> None:
    with start("plain") as running:
        ran = pagewalk("show", running.pid, "--freeze", "--quiet")
        check_goes_on(running)
    assert (ran.code, ran.err) == (0, "")


def test_without_freeze_nothing_is_stopped() -> None:
    with start("runs", RUNS) as running:
        process = begin("pages", running.pid)
        assert process.stdout is not None
        process.stdout.readline()
        assert "T" not in states(running.pid)
        assert end(process).code == 0


def test_no_child_is_left_behind() -> None:
    # The watching child has the command's output open: if it had stayed, reading would not end.
    with start("plain") as running:
        process = begin("show", running.pid, "--freeze")
        end(process)
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        if children.exists():
            assert str(process.pid) not in children.read_text().split()


LONGEST_NS = 2 * 10**9  # long enough for a busy machine to let us look while it is stopped


def test_it_is_resumed_in_time_whatever_we_are_doing() -> None:
    with start("runs", 10) as running:
        target = open_target(running.pid)
        try:
            with frozen_for(target, LONGEST_NS) as stop:
                assert states(running.pid) == {"T"}
                # Nothing of ours resumes it: we only look.
                wait(lambda: "T" not in states(running.pid), "the target to go on by itself")
                assert time.monotonic_ns() >= stop.until_ns
        finally:
            target.close()
        check_goes_on(running)
    # It was stopped for the longer of what stopping took and what that leaves of the time allowed.
    assert stop.ns >= LONGEST_NS // 2


def test_a_stop_that_took_all_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with start("runs", 10) as running:
        target = open_target(running.pid)
        # As if we had not had a CPU until the child that resumes it had ended.
        monkeypatch.setattr(freeze, "wait_at_rest", lambda *_: os.waitid(
            os.P_ALL, 0, os.WEXITED | os.WNOWAIT))
        try:
            with frozen_for(target, 50_000_000) as stop:
                assert time.monotonic_ns() > stop.until_ns
        finally:
            target.close()
        check_goes_on(running)


def test_the_end_of_the_block_resumes_it_at_once() -> None:
    with start("runs", 10) as running:
        target = open_target(running.pid)
        try:
            with frozen_for(target, 60 * 10**9) as stop:
                assert states(running.pid) == {"T"}
            check_goes_on(running)
        finally:
            target.close()
    assert 0 < stop.ns < 60 * 10**9


def test_one_that_others_had_stopped_stays_stopped() -> None:
    with start("runs", 10) as running:
        target = open_target(running.pid)
        try:
            os.kill(running.pid, signal.SIGSTOP)
            wait(lambda: states(running.pid) == {"T"}, "the target to stop")
            with frozen_for(target, 1_000_000) as stop:
                time.sleep(0.01)
                assert states(running.pid) == {"T"}
            assert states(running.pid) == {"T"} and stop.ns == 0
            os.kill(running.pid, signal.SIGCONT)
            check_goes_on(running)
        finally:
            target.close()


@pytest.mark.parametrize(("number", "words"), [
    (signal.SIGSTOP, ("cannot stop process 7: ", "or drop --freeze")),
    (signal.SIGQUIT, ("cannot send SIGQUIT to process 7: ", "or drop --ask")),
])
def test_who_may_not_send_a_signal_is_told_which_option_sends_it(
    number: signal.Signals, words: tuple[str, str]
) -> None:
    said = str(freeze.send_error(OSError(errno.EINVAL, ""), 7, number))
    assert said.startswith(words[0]) and said.endswith(words[1])


def continued(pid: int) -> bool:
    """Return whether a child was stopped and has gone on since this was last asked."""
    return os.waitid(os.P_PID, pid, os.WCONTINUED | os.WNOHANG) is not None


def test_record_and_diff_stop_it_if_they_are_told_to(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with start("plain") as running:
        pid = running.pid
        ran = pagewalk("record", pid, "-o", path)
        assert ran.code == 0 and not continued(pid) and "stopped" not in ran.out
        ran = pagewalk("record", pid, "-o", path, "--freeze")
        assert ran.code == 0 and continued(pid), ran.err
        assert re.search(r", no process was stopped for longer than \d+\.?\d* (ms|µs)$", ran.out)
        check_goes_on(running)
        ran = pagewalk("diff", path, pid)
        assert ran.code == 0 and not continued(pid) and "stopped" not in ran.err
        ran = pagewalk("diff", path, pid, "--freeze")
        assert ran.code == 0 and continued(pid), ran.err
        assert re.search(r"no process was stopped for longer than \d+\.?\d* (ms|µs)", ran.err)
        check_goes_on(running)
        ran = pagewalk("diff", path, path, "--freeze")
        assert ran.code == 2 and "--freeze is about a live process" in ran.err


def test_a_recorder_that_ends_early_lets_it_go_on(tmp_path: Path) -> None:
    """SIGTERM comes while it is stopped; with --every that is between two recordings too."""
    with start("runs", RUNS) as running:
        process = begin("record", running.pid, "-o", tmp_path / "series", "--every", "10ms", "-q",
                        "--freeze")
        for _ in range(3):
            wait(lambda: "T" in states(running.pid), "a stop")
            check_goes_on(running)
        wait(lambda: "T" in states(running.pid), "a stop")
        process.terminate()
        assert end(process).code in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
        check_goes_on(running)
