"""The version of Go that a program was built with, from its file (debug/buildinfo of Go)."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from itertools import islice

from pagewalk.model.errors import NotPermitted
from pagewalk.proc.refusals import reading
from pagewalk.proc.target import Target

# Elf64_Ehdr as far as it is needed: where the section headers are, their size, how many, and which
# has their names. Of Elf64_Shdr: the name, where it is in the file, its size.
HEADER, SECTION = "<6s34xQ10xHHH", "<I20xQQ24x"
MOST_SECTIONS, MOST_NAMES = 1 << 12, 1 << 16
NAME, MAGIC = b".go.buildinfo\0", b"\xff Go buildinf:"
INLINE = 2  # of the flags: the version's text follows, after its length
FLAGS, TEXT, LONGEST = 15, 32, 127


def built_by(target: Target) -> str | None:
    """Return the version of Go that built a process's program, None for none; see go_version.

    It is None too where we may not read the program. Raises ProcessGone.
    """
    with (suppress(NotPermitted), reading(target.pid, "exe", target.dirfd),
          open(target.open("exe"), "rb", 0) as file):
        return go_version(file.fileno())
    return None


def go_version(fd: int) -> str | None:
    """Return the version of Go, as ``go1.19.8``, that built the ELF file ``fd``; None for none.

    It is empty for Go before 1.18, which keeps it elsewhere. A few KiB are read. Raises OSError.
    """
    head = pread(fd, struct.calcsize(HEADER), 0)
    if len(head) < struct.calcsize(HEADER):
        return None
    magic, at, size, count, names = struct.unpack(HEADER, head)
    if magic != b"\x7fELF\x02\x01" or size != struct.calcsize(SECTION) or count > MOST_SECTIONS:
        return None
    raw = pread(fd, size * count, at)
    rows = list(struct.iter_unpack(SECTION, raw[: len(raw) // size * size]))
    _, at, length = next(islice(rows, names, None), (0, 0, 0))
    text = pread(fd, min(length, MOST_NAMES), at)
    for name, at, _ in rows:
        if text[name : name + len(NAME)] == NAME:
            return version_in(pread(fd, TEXT + 1 + LONGEST, at))
    return None


def pread(fd: int, size: int, at: int) -> bytes:
    return os.pread(fd, size, at) if at < 1 << 62 else b""


def version_in(raw: bytes) -> str | None:
    """Return the version that the contents of .go.buildinfo tell; see go_version."""
    if len(raw) <= TEXT or not raw.startswith(MAGIC):
        return None
    if not raw[FLAGS] & INLINE:
        return ""
    # A longer text would have a length of two bytes: no version is that long.
    length = raw[TEXT]
    return raw[TEXT + 1 :][:length].decode(errors="replace") if length <= LONGEST else ""
