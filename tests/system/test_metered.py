"""What is looked at for metrics: the program of a process, and what time did not suffice for."""

from __future__ import annotations

import pytest

from pagewalk.proc.chosen import Chosen
from pagewalk.proc.processes import Process
from pagewalk.system.members import Looked, Member, Tried
from pagewalk.system.metered import counts_of, host_path, program, unwalked
from tests.share_by_hand import family


def member(program: str, name: str = "comm", pids: tuple[int, ...] = (31337,)) -> Member:
    return family().looked.members[0]._replace(pids=pids, name=name, program=program)


@pytest.mark.parametrize(
    ("argv0", "called"),
    [
        ("/usr/sbin/nginx", "nginx"),
        ("shop.py", "shop.py"),
        ("", "comm"),
        ("postgres: alice shop 10.0.0.7(50312) idle", "comm"),  # a title, and a client's address
        ("sshd: root@pts/0", "comm"),
        ("/opt/chromium/chromium --type=renderer --crash-handler-pid=12", "comm"),
        ("worker-31337", "worker-PID"),
        ("31337", "PID"),
        ("worker-313370", "worker-313370"),  # another number
        ("/opt/my app/server", "comm"),
    ],
)
def test_a_program_is_called_by_what_does_not_change(argv0: str, called: str) -> None:
    assert program(member(argv0)) == (called, called)


def test_those_that_were_neither_walked_nor_ended_are_known_by_their_rss() -> None:
    walked, ended, refused, late = (
        Chosen(Process(pid, "x", "x", 0, pid * 4096), 1) for pid in (10, 11, 12, 13))
    tried = Tried("ebpf", ((12, "no"),), (11,), 0, (), refused=1)
    looked = Looked((member("x", pids=(10,)),), tried)
    unseen = unwalked(looked, [walked, ended, refused, late])
    assert [(one.pids, one.amounts["rss"], one.amounts["uss"]) for one in unseen] == [
        ((12,), 12 * 4096, None), ((13,), 13 * 4096, None)]
    assert counts_of(looked, left=1) == (1, 1, 0, 1, 1)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/../../system.slice/x", "/system.slice/x"),
        ("/../..", "/"),
        ("/", "(ours)"),
        ("/child", "(ours)/child"),
        ("unknown", "unknown"),
    ],
)
def test_in_a_cgroup_namespace_a_path_is_that_of_the_host(path: str, found: str) -> None:
    assert host_path(path, "/../..") == found
