"""Changes of files and directories, on real ones."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from pagewalk.proc.inotify import DELETED, MODIFIED, add_watch, open_inotify, read_changes


def test_what_is_written_and_removed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "file").write_text("1")
    fd = open_inotify()
    try:
        folder = add_watch(fd, str(tmp_path), DELETED)
        file = add_watch(fd, str(tmp_path / "file"), MODIFIED)
        assert read_changes(fd) == []
        (tmp_path / "file").write_text("2")
        (tmp_path / "in").rmdir()
        assert select.select([fd], [], [], 60)[0]
        found = read_changes(fd)
        assert (file, b"") in found and found[-1] == (folder, b"in")
        assert read_changes(fd) == []
    finally:
        os.close(fd)


def test_a_name_may_be_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff\n b")
    (tmp_path / name).touch()
    fd = open_inotify()
    try:
        watch = add_watch(fd, str(tmp_path), DELETED)
        (tmp_path / name).unlink()
        assert read_changes(fd) == [(watch, b"a\xff\n b")]
    finally:
        os.close(fd)


def test_what_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    fd = open_inotify()
    try:
        with pytest.raises(FileNotFoundError):
            add_watch(fd, str(tmp_path / "none"), DELETED)
    finally:
        os.close(fd)
