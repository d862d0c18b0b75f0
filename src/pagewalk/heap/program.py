"""The file of the program that a process runs, of which a few sections are read (ELF, 64-bit)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import NamedTuple

from pagewalk.model.errors import NotPermitted
from pagewalk.proc.refusals import reading
from pagewalk.proc.target import Target

# Elf64_Ehdr as far as it is needed: where the section headers are, their size, how many, and which
# has their names. Of Elf64_Shdr: the name, where it is in the file, its size.
HEADER, SECTION = "<6s34xQ10xHHH", "<I20xQQ24x"
MOST_SECTIONS, MOST_NAMES = 1 << 12, 1 << 16


class Section(NamedTuple):
    """A section: its ``size`` in bytes, and where it is ``at`` in the file."""

    name: bytes
    at: int
    size: int


@contextmanager
def opened_program(target: Target) -> Iterator[int | None]:
    """Open the program of ``target`` in the block; None where we may not read it.

    Raises ProcessGone.
    """
    fd = None
    with suppress(NotPermitted), reading(target.pid, "exe", target.dirfd):
        fd = target.open("exe")
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def sections(fd: int) -> Iterator[Section]:
    """Yield the sections of the ELF file ``fd``; none if it is not one. Raises OSError."""
    head = pread(fd, struct.calcsize(HEADER), 0)
    if len(head) < struct.calcsize(HEADER):
        return
    magic, at, size, count, names = struct.unpack(HEADER, head)
    if magic != b"\x7fELF\x02\x01" or size != struct.calcsize(SECTION) or count > MOST_SECTIONS:
        return
    raw = pread(fd, size * count, at)
    rows = list(struct.iter_unpack(SECTION, raw[: len(raw) // size * size]))
    _, at, length = next(islice(rows, names, None), (0, 0, 0))
    text = pread(fd, min(length, MOST_NAMES), at)
    for name, at, size in rows:
        yield Section(text[name:].partition(b"\0")[0], at, size)


def pread(fd: int, size: int, at: int) -> bytes:
    """Return up to ``size`` bytes from ``at`` on, which a forged file may have put anywhere."""
    return os.pread(fd, size, at) if at < 1 << 62 else b""
