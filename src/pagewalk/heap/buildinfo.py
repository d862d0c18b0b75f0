"""The version of Go that a program was built with, from its file (debug/buildinfo of Go)."""

from __future__ import annotations

from pagewalk.heap.program import opened_program, pread, sections
from pagewalk.proc.target import Target

NAME, MAGIC = b".go.buildinfo", b"\xff Go buildinf:"
INLINE = 2  # of the flags: the version's text follows, after its length
FLAGS, TEXT, LONGEST = 15, 32, 127


def built_by(target: Target) -> str | None:
    """Return the version of Go that built a process's program, None for none; see go_version.

    It is None too where we may not read the program. Raises ProcessGone.
    """
    with opened_program(target) as fd:
        return None if fd is None else go_version(fd)


def go_version(fd: int) -> str | None:
    """Return the version of Go, as ``go1.19.8``, that built the ELF file ``fd``; None for none.

    It is empty for Go before 1.18, which keeps it elsewhere. A few KiB are read. Raises OSError.
    """
    for section in sections(fd):
        if section.name == NAME:
            return version_in(pread(fd, TEXT + 1 + LONGEST, section.at))
    return None


def version_in(raw: bytes) -> str | None:
    """Return the version that the contents of .go.buildinfo tell; see go_version."""
    if len(raw) <= TEXT or not raw.startswith(MAGIC):
        return None
    if not raw[FLAGS] & INLINE:
        return ""
    # A longer text would have a length of two bytes: no version is that long.
    length = raw[TEXT]
    return raw[TEXT + 1 :][:length].decode(errors="replace") if length <= LONGEST else ""
