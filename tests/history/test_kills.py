"""Which kills of the kernel's log are those of a cgroup, by a pipe of packets in place of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from pagewalk.history.glance import Member
from pagewalk.history.kills import Kills, of_group
from tests.proc.test_kmsg import FOUND, KILLED, WHY

SEEN = Member(FOUND.pid, FOUND.name, 0, 0, 0, 0)


@contextmanager
def log() -> Iterator[tuple[int, int]]:
    """Yield a log to read and its other end: each read returns what was written at once."""
    ends = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    try:
        yield ends
    finally:
        for fd in ends:
            os.close(fd)


def test_a_kill_is_of_its_group_and_of_those_above() -> None:
    for path, inside in (("/a/b", True), ("/a", True), ("/", True), ("/a/b/", True),
                         ("/a/bc", False), ("/a/b/c", False), ("/b", False)):
        assert of_group([FOUND], path, set()) == [FOUND] * inside


def test_who_was_seen_in_it_was_in_it() -> None:
    # The log has another path, or none, in a namespace of cgroups.
    for kill in (FOUND, FOUND._replace(group=None)):
        assert of_group([kill], "/x", {(FOUND.pid, FOUND.name)}) == [kill]
        assert of_group([kill], "/x", {(FOUND.pid, "another")}) == []


def test_a_kill_is_told_of_until_a_recording_of_one_has_it() -> None:
    with log() as (kmsg, kernel):
        kills = Kills(kmsg, "/x")
        os.write(kernel, b"6,1,2,-;" + WHY)
        assert kills.read([SEEN]) == ()
        os.write(kernel, b"3,2,3,-;" + KILLED)
        assert kills.read([SEEN]) == kills.read([]) == (FOUND,)
        kills.told()
        assert kills.read([SEEN]) == ()


def test_as_many_as_were_counted_are_waited_for() -> None:
    with log() as (kmsg, kernel):
        later = Timer(0.05, lambda: os.write(kernel, b"3,2,3,-;" + KILLED))
        later.start()
        try:
            assert len(Kills(kmsg, "/x").read([SEEN], 1)) == 1
        finally:
            later.join()
