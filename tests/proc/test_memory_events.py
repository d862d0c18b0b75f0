"""What is opened is closed when the kernel refuses; tests/live/test_armed.py has real events."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pagewalk.proc.memory_events import register, seen, watch_events


def descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


def test_a_group_without_the_files(tmp_path: Path) -> None:
    group = os.open(tmp_path, os.O_RDONLY)
    before = descriptors()
    for attempt in (lambda: register(group, "memory.oom_control"), lambda: watch_events(group)):
        with pytest.raises(FileNotFoundError):
            attempt()
    (tmp_path / "memory.oom_control").touch()
    with pytest.raises(FileNotFoundError):
        register(group, "memory.oom_control")
    assert descriptors() == before
    os.close(group)


def test_what_is_registered(tmp_path: Path) -> None:
    (tmp_path / "memory.usage_in_bytes").touch()
    (tmp_path / "cgroup.event_control").touch()
    group = os.open(tmp_path, os.O_RDONLY)
    fd = register(group, "memory.usage_in_bytes", "4096")
    event, _, argument = (tmp_path / "cgroup.event_control").read_bytes().split(b" ")
    assert int(event) == fd and argument == b"4096"
    with pytest.raises(BlockingIOError):
        os.eventfd_read(fd)
    os.close(fd)
    os.close(group)


def test_events_are_read_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\n")
    group = os.open(tmp_path, os.O_RDONLY)
    fd = watch_events(group)
    seen(fd)
    os.close(fd)
    os.close(group)
