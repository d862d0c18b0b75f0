"""Command lines: a process that does not answer keeps nobody waiting, and has no words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pagewalk.proc import command_lines
from pagewalk.proc.command_lines import NO_WORDS, read_command_lines


def folder(root: Path, pid: int, line: bytes | None) -> str:
    """Return a /proc/PID with a command line; None: one whose reading waits for a writer."""
    base = root / str(pid)
    base.mkdir()
    if line is None:
        os.mkfifo(base / "cmdline")
    else:
        (base / "cmdline").write_bytes(line)
    return str(base)


def test_each_has_its_words_in_order(tmp_path: Path) -> None:
    folders = [folder(tmp_path, 1, b"a\0b\0"), str(tmp_path / "ended"), folder(tmp_path, 2, b"")]
    assert list(read_command_lines(folders)) == [("a", "b", ""), None, NO_WORDS]
    assert list(read_command_lines([])) == []


def test_who_does_not_answer_has_none_and_those_behind_have_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_lines, "PATIENCE", 0.2)
    lines = [b"a", None, b"b", None, None, b"c", None]
    folders = [folder(tmp_path, pid, line) for pid, line in enumerate(lines)]
    try:
        assert list(read_command_lines(folders)) == [
            NO_WORDS if line is None else (line.decode(),) for line in lines]
    finally:
        for base, line in zip(folders, lines, strict=True):
            if line is None:
                os.close(os.open(f"{base}/cmdline", os.O_WRONLY))  # lets the reader go
