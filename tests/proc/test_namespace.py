"""Which namespace's ids this /proc shows: ours here, others in hand-made status files."""

from __future__ import annotations

import os
import subprocess

import pytest

from pagewalk.model.errors import BadTarget, ProcessGone
from pagewalk.proc import namespace
from pagewalk.proc.namespace import number_in_proc, own_numbers, own_parent, pid_numbers, shown_as

STATUS = b"Name:\tpagewalk\nPid:\t4711\nPPid:\t4700\nNSpid:\t4711\t7\n"


def test_in_our_own_namespace_a_pid_stands_for_itself() -> None:
    assert own_numbers()[0] == int(os.readlink("/proc/self"))
    assert own_parent() == os.getppid()
    assert shown_as(os.getpid()) == number_in_proc(os.getpid()) == os.getpid()


def test_whether_proc_shows_the_whole_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "INITIAL", os.stat("/proc/self/ns/pid").st_ino)
    assert namespace.shows_all() is True
    monkeypatch.setattr(namespace, "INITIAL", 1)
    assert namespace.shows_all() is False


def test_a_process_that_has_ended_has_no_number() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
        assert shown_as(child.pid) is None
    assert shown_as(1 << 40) == 0  # no pid can be that large


def test_the_ids_of_a_deeper_namespace_come_after_those_of_proc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(namespace, "read_bytes", lambda path: STATUS)
    assert own_numbers() == [4711, 7]
    assert own_parent() == 4700


def test_the_ids_of_any_process_from_the_outermost_to_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert pid_numbers(os.getpid())[0] == os.getpid()
    with subprocess.Popen(["true"]) as child:
        child.wait()
        with pytest.raises(ProcessGone):
            pid_numbers(child.pid)
    monkeypatch.setattr(namespace, "read_bytes", lambda path: STATUS)
    assert pid_numbers(4711) == (4711, 7)


@pytest.mark.parametrize(("shown", "number"), [(None, 7), (7, 7), (4711, None)])
def test_a_pid_that_means_two_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, shown: int | None, number: int | None
) -> None:
    # /proc has another process 7 whenever ours has another number there.
    monkeypatch.setattr(namespace, "own_numbers", lambda: [4711, 7])
    monkeypatch.setattr(namespace, "shown_as", lambda pid: shown)
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    if number is None:
        with pytest.raises(BadTarget, match="'7' may be two processes"):
            number_in_proc(7)
    else:
        assert number_in_proc(7) == number


def test_a_pid_that_only_we_know_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "own_numbers", lambda: [4711, 7])
    monkeypatch.setattr(namespace, "shown_as", lambda pid: 4711)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert number_in_proc(7) == 4711
