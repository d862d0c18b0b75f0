"""What an errno from /proc means, found by a second look at the process."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator

import pytest

from pagewalk.model.errors import NotPermitted, ProcessGone, SourceUnavailable
from pagewalk.proc import refusals
from pagewalk.proc.refusals import alive, meaning, reading, why_missing, why_refused


@pytest.fixture
def own() -> Iterator[int]:
    fd = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def zombie() -> Iterator[tuple[int, int]]:
    with subprocess.Popen(["true"]) as child:
        fd = os.open(f"/proc/{child.pid}", os.O_RDONLY | os.O_DIRECTORY)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        yield child.pid, fd
        os.close(fd)


def met(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_whether_a_process_lives_is_read_from_its_stat(own: int, zombie: tuple[int, int]) -> None:
    assert alive(own)
    assert not alive(zombie[1])


def test_a_file_that_vanished_with_its_process(zombie: tuple[int, int]) -> None:
    pid, fd = zombie
    for number in refusals.GONE:
        found = meaning(met(number), pid, "maps", fd)
        assert isinstance(found, ProcessGone)
        assert str(pid) in str(found)


def test_a_file_that_this_kernel_does_not_have(own: int) -> None:
    found = meaning(met(errno.ENOENT), os.getpid(), "no_such_file", own)
    assert isinstance(found, SourceUnavailable)
    assert "use a kernel that is built with it" in str(found)


def test_a_file_that_vanished_from_a_living_process(own: int) -> None:
    found = meaning(met(errno.ENOENT), os.getpid(), "maps", own)
    assert isinstance(found, ProcessGone)
    assert "exec" in str(found)


def test_any_other_error_keeps_its_own_words(own: int) -> None:
    assert "Input/output error" in str(meaning(met(errno.EIO), os.getpid(), "maps", own))
    assert "signal" in str(meaning(met(errno.EINTR), os.getpid(), "maps", own))
    assert "Too many open files; raise the limit (ulimit -n" in str(
        meaning(met(errno.EMFILE), os.getpid(), "maps", own))


@pytest.mark.parametrize(
    ("held", "initial", "user", "uids", "cause"),
    [
        (True, True, 0, (0, 0, 0), "security module"),
        (False, False, 0, (0, 0, 0), "user namespace"),
        (False, True, 0, (0, 0, 0), "root without CAP_SYS_PTRACE"),
        (False, True, 1000, (0, 0, 0), "belongs to uid 0, you are uid 1000"),
        (False, True, 1000, (1000, 0, 1000), "belongs to uid 0, you are uid 1000"),
        (False, True, 1000, (1000, 1000, 1000), "not dumpable"),
    ],
)
def test_why_it_was_refused(
    monkeypatch: pytest.MonkeyPatch,
    held: bool, initial: bool, user: int, uids: tuple[int, ...], cause: str,
) -> None:
    monkeypatch.setattr(refusals, "has_capability", lambda name: held)
    monkeypatch.setattr(refusals, "in_initial_user_namespace", lambda: initial)
    monkeypatch.setattr(refusals, "status_uids", lambda pid, dirfd: uids)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert cause in why_refused(1, "maps")[0]


def test_refused_while_reading_is_the_typed_error(own: int) -> None:
    with pytest.raises(NotPermitted, match=f"/proc/{os.getpid()}/maps"), \
            reading(os.getpid(), "maps", own):
        raise met(errno.EACCES)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [({b"rw", b"subset=pid"}, "without that option"), ({b"rw"}, "CONFIG_PROC_PAGE_MONITOR")],
)
def test_why_a_file_of_the_machine_is_missing(
    monkeypatch: pytest.MonkeyPatch, options: set[bytes], remedy: str
) -> None:
    monkeypatch.setattr(refusals, "proc_options", lambda: frozenset(options))
    assert remedy in why_missing("/proc/kpageflags", "CONFIG_PROC_PAGE_MONITOR")[1]
