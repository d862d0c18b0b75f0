"""Waiting for descriptors of our own; tests/live/test_armed.py waits for the kernel's."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from pagewalk.history.waiting import (
    CHANGES,
    CROSSED,
    LIMIT,
    LOOK,
    MACHINE_PRESSURE,
    OOM,
    REMOVED,
    Waiting,
    waiting,
)
from pagewalk.model.errors import GroupGone, NotPermitted


def event() -> int:
    return os.eventfd(0, os.EFD_NONBLOCK)


def test_what_is_ready_is_named_and_then_waited_for_again(tmp_path: Path) -> None:
    told = Waiting(-1, 1, "/a")
    near, full = (told.add(name, event(), select.POLLIN) for name in (CROSSED, OOM))
    os.eventfd_write(near, 3)
    assert told.wait() == {CROSSED}
    assert told.wait(0) == {LOOK}
    os.eventfd_write(near, 1)
    assert told.wait(0, only=(OOM,)) == {LOOK}
    os.eventfd_write(full, 1)
    assert told.wait() == {CROSSED, OOM}
    os.eventfd_write(near, 1)
    os.eventfd_write(full, 1)
    told.forget()
    assert told.wait(0) == {OOM}
    for fd in (near, full):
        os.close(fd)


def test_pressure_that_nobody_felt_is_no_report(tmp_path: Path) -> None:
    told, file = Waiting(-1, 1, "/a"), tmp_path / "memory"

    def waits(total: int) -> list[str]:
        file.write_text(f"some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\nfull total=7\n")
        return list(told.read(fd, select.POLLPRI))

    fd = os.open(file, os.O_RDWR | os.O_CREAT)
    told.names[fd], told.stalls[fd] = MACHINE_PRESSURE, (1_000_000, 50_000)
    assert waits(1_005_000) == waits(1_049_999) == []
    assert waits(1_050_000) == [MACHINE_PRESSURE]
    assert waits(1_060_000) == []
    told.stalls.clear()  # with CAP_SYS_RESOURCE none is in doubt
    assert waits(1_060_000) == [MACHINE_PRESSURE]
    os.close(fd)


def test_what_cannot_be_waited_for_is_said() -> None:
    told = Waiting(-1, 1, "/a")

    def refuse() -> int:
        raise NotPermitted("cannot watch it", "permission denied", "run as root")

    def vanish() -> int:
        raise FileNotFoundError(2, "gone")

    assert told.attempt("that", refuse, OOM, select.POLLIN) is None
    assert told.missing == ["that: cannot watch it: permission denied; run as root"]
    assert told.noticed == []
    with pytest.raises(GroupGone):
        told.attempt("that", vanish, OOM, select.POLLIN)


def test_a_limit_that_is_written_and_a_group_that_is_removed(tmp_path: Path) -> None:
    # A directory that looks like a cgroup of version 2.
    group = tmp_path / "group"
    group.mkdir()
    for name in ("memory.max", "memory.high", "memory.events", "cgroup.procs"):
        (group / name).touch()
    beside = tmp_path / "beside"
    beside.mkdir()
    fd = os.open(group, os.O_RDONLY)
    with waiting("/group", 2, fd, 0) as told:
        assert told.noticed == ["memory.events"] and told.missing == []
        (group / "memory.max").write_text("1")
        assert told.wait() == {LIMIT}
        beside.rmdir()
        assert told.wait() == {LOOK}
        for path in group.iterdir():
            path.unlink()
        group.rmdir()
        assert REMOVED in told.wait()
    assert CHANGES not in told.noticed
    os.close(fd)
