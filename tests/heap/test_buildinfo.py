"""Which Go a program was built with, in ELF files written by hand and real ones."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from pagewalk.heap.buildinfo import FLAGS, INLINE, MAGIC, TEXT, go_version, version_in
from pagewalk.heap.program import SECTION


def info(version: bytes, flags: int = INLINE) -> bytes:
    """Return the contents of .go.buildinfo."""
    head = (MAGIC.ljust(FLAGS, b"\x08") + bytes([flags])).ljust(TEXT, b"\0")
    return head + bytes([len(version)]) + version + b"\0"


def elf(contents: bytes, name: bytes = b".go.buildinfo") -> bytes:
    """Return an ELF file with one section besides that of names."""
    names = b"\0" + name + b"\0"
    body = bytes(64) + names + contents
    sections = [(0, 0, 0), (0, 64, len(names)), (1, 64 + len(names), len(contents))]
    head = b"\x7fELF\x02\x01".ljust(40, b"\0") + struct.pack("<Q", len(body)) + bytes(10)
    head += struct.pack("<HHH", 64, len(sections), 1)
    return head + body[64:] + b"".join(struct.pack(SECTION, *row) for row in sections)


def version_of(tmp_path: Path, raw: bytes) -> str | None:
    (tmp_path / "program").write_bytes(raw)
    with open(tmp_path / "program", "rb", 0) as file:
        return go_version(file.fileno())


@pytest.mark.parametrize(("raw", "version"), [
    (elf(info(b"go1.19.8")), "go1.19.8"),
    (elf(info(b"go1.24.4 X:arenas")), "go1.24.4 X:arenas"),
    (elf(info(b"go1.17", flags=0)), ""),
    (elf(info(b"go1.19.8"), name=b".data"), None),
    (elf(b"no" * 40), None),
    (elf(info(b"go\x1b[31m\xff")), "go\x1b[31m\ufffd"),
    (elf(info(b"x" * 128)), ""),
    (b"", None), (b"\x7fELF\x02\x01", None), (b"#!/bin/sh\n" * 20, None),
])
def test_the_version_is_told(tmp_path: Path, raw: bytes, version: str | None) -> None:
    assert version_of(tmp_path, raw) == version


def test_a_program_in_another_language_has_none() -> None:
    with open(os.path.realpath(sys.executable), "rb", 0) as file:
        assert go_version(file.fileno()) is None


def test_whatever_the_bytes_are_nothing_is_raised() -> None:
    raw = elf(info(b"go1.19.8"))
    fd = os.memfd_create("program")
    for at in range(len(raw)):
        for byte in (0, 1, 0x7F, 0xFF):
            os.pwrite(fd, raw[:at] + bytes([byte]) + raw[at + 1 :], 0)
            go_version(fd)
    for size in range(len(raw), -1, -1):
        os.ftruncate(fd, size)
        go_version(fd)
    os.close(fd)
    assert version_in(b"") is None
