"""Asking a JVM, on processes that play one, well or badly. Real ones: tests/live/test_jvm.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagewalk.heap.attach import LARGEST, Answers, ask
from pagewalk.model.errors import ProcessGone
from pagewalk.proc.target import open_target
from tests.targets import stop

# What a JVM does on SIGQUIT, as far as a client sees it.
PLAYER = """if True:
    import os, signal, socket, sys, time
    how, here = sys.argv[1], f"/tmp/.java_pid{os.getpid()}"
    if os.path.lexists(here):  # an earlier process of this pid was killed
        os.unlink(here)
    listener = socket.socket(socket.AF_UNIX)
    asked = []

    def opens(*_):
        asked.append(os.path.exists(f"/tmp/.attach_pid{os.getpid()}"))
        # As HotSpot does: its name appears when it already listens.
        listener.bind(here + ".tmp")
        listener.listen()
        if how == "link":
            os.symlink(here + ".tmp", here)
        else:
            os.rename(here + ".tmp", here)

    if how != "uncaught":
        signal.signal(signal.SIGQUIT, opens if how != "deaf" else lambda *_: None)
    if how == "earlier":
        opens()
    print("ready", flush=True)
    while how in ("deaf", "uncaught", "link") or not asked:
        time.sleep(0.01)
    while True:
        line, _ = listener.accept()
        said = b""
        while said.count(b"\\0") < 5:
            said += line.recv(1024)
        version, operation, command, *_ = said.split(b"\\0")
        if how == "silent":
            time.sleep(60)
        if how == "refuses" and command == b"second":
            line.sendall(b"1\\njava.lang.IllegalArgumentException: \\x1b[31m\\n")
        elif how == "dies":
            os._exit(0)
        else:
            words = [version, operation, command, *(str(one).encode() for one in asked)]
            line.sendall(b"0\\n" + b" ".join(words))
        try:
            while how in ("endless", "drips"):
                line.sendall(b"x" * 65536 if how == "endless" else b"x")
                if how == "drips":
                    time.sleep(0.05)
        except OSError:
            pass
        line.close()
"""


@contextmanager
def playing(how: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", PLAYER, how], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        for name in files(process.pid):
            os.unlink(f"/tmp/{name}")


def files(pid: int) -> list[str]:
    return [name for name in os.listdir("/tmp")
            if name.split(".tmp")[0] in (f".java_pid{pid}", f".attach_pid{pid}")]


def asked(pid: int, *commands: str, patience_s: float = 20) -> Answers:
    target = open_target(pid)
    try:
        return ask(target, commands, patience_s)
    finally:
        target.close()


def test_each_command_is_answered_and_only_the_jvms_own_socket_stays() -> None:
    with playing("answers") as pid:
        found = asked(pid, "first", "second scale=1")
        assert found.texts == {"first": "1 jcmd first True",
                               "second scale=1": "1 jcmd second scale=1 True"}
        assert found.started and found.why == "" and found.took_ns > 0
        assert files(pid) == [f".java_pid{pid}"]
        again = asked(pid, "first")
    assert again.texts == {"first": "1 jcmd first True"} and not again.started


def test_a_socket_that_is_there_is_used_without_a_signal() -> None:
    with playing("earlier") as pid:
        found = asked(pid, "first")
    assert found.texts == {"first": "1 jcmd first False"} and not found.started


def test_a_process_that_sigquit_would_end_is_left_alone() -> None:
    with playing("uncaught") as pid:
        found = asked(pid, "first")
        os.kill(pid, 0)
    assert found.texts == {} and "does not catch SIGQUIT" in found.why and not found.started


def test_one_that_is_stopped_is_left_alone() -> None:
    """SIGQUIT would wait for it, and make it print its threads when it goes on."""
    with playing("answers") as pid:
        stop(pid)
        found = asked(pid, "first")
        pending = Path(f"/proc/{pid}/status").read_text()
    assert found.why == "it is stopped" and "ShdPnd:\t0000000000000000" in pending


def test_a_socket_that_nobody_listens_to_is_a_reason() -> None:
    with playing("earlier") as pid:
        os.unlink(f"/tmp/.java_pid{pid}")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(f"/tmp/.java_pid{pid}")
        found = asked(pid, "first")
    assert found.why == "cannot speak to its socket: connection refused"


def test_a_refusal_does_not_keep_from_asking_on() -> None:
    with playing("refuses") as pid:
        found = asked(pid, "first", "second", "third")
    assert [*found.texts] == ["first", "third"]
    assert found.why.startswith("second: java.lang.IllegalArgumentException")


@pytest.mark.parametrize("how", ["silent", "drips", "deaf"])
def test_one_that_does_not_answer_in_time_is_given_up(how: str) -> None:
    with playing(how) as pid:
        began = time.monotonic()
        found = asked(pid, "first", patience_s=0.5)
        assert time.monotonic() - began < 10  # a hang
        assert found.texts == {} and found.why == "it did not answer within 0.5 s"
        assert f".attach_pid{pid}" not in files(pid)


def test_an_answer_without_end_is_cut_off() -> None:
    with playing("endless") as pid:
        found = asked(pid, "first")
    assert found.texts == {} and f"longer than {LARGEST >> 20} MiB" in found.why


def test_no_link_is_followed() -> None:
    with playing("link") as pid:
        found = asked(pid, "first")
    assert found.why == f".java_pid{pid} in its /tmp is not its own" and found.texts == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another user")
def test_a_file_of_another_user_is_not_taken_for_a_mark() -> None:
    with playing("answers") as pid:
        name = f"/tmp/.attach_pid{pid}"
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
        os.chown(name, 65534, 65534)
        found = asked(pid, "first")
        assert f".java_pid{pid}" not in files(pid)  # no signal was sent
    assert found.why == f".attach_pid{pid} in its /tmp is not its own"


def test_one_that_dies_while_it_answers_has_not_answered() -> None:
    with playing("dies") as pid:
        found = asked(pid, "first")
    assert found.texts == {} and found.why == "first: no answer"


def test_one_that_has_ended_is_gone() -> None:
    with playing("answers") as pid:
        target = open_target(pid)
    with pytest.raises(ProcessGone):
        ask(target, ["first"])
    target.close()


def test_our_own_user_and_group_stay() -> None:
    before = os.geteuid(), os.getegid()
    with playing("answers") as pid:
        asked(pid, "first")
    assert (os.geteuid(), os.getegid()) == before
