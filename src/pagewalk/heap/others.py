"""Which allocators a process has besides glibc's: by its libraries, and by texts in its program."""

from __future__ import annotations

import re

from pagewalk.heap.program import opened_program, pread, sections
from pagewalk.model.columns import VMAs
from pagewalk.proc.target import Target

LIBRARIES = {
    "jemalloc": re.compile(r"/libjemalloc[^/]*$"),
    "tcmalloc": re.compile(r"/libtcmalloc[^/]*$"),
    "mimalloc": re.compile(r"/libmimalloc[^/]*$"),
    "snmalloc": re.compile(r"/libsnmalloc[^/]*$"),
    "Hoard": re.compile(r"/libhoard[^/]*$"),
    "musl": re.compile(r"/(ld-musl-|libc\.musl-)[^/]*$|-musl/libc\.so$"),
    "bionic": re.compile(r"/bionic/libc\.so$"),
}
# What each begins its own messages with: that is in a program it is linked into, stripped or not.
TEXTS = {
    "jemalloc": b"<jemalloc>: ",
    "tcmalloc": b"MALLOC:   ------------",
    "mimalloc": b"mimalloc: warning: ",
}
CONSTANTS = b".rodata"
LONGEST, AT_ONCE, MOST = 64, 4 << 20, 64 << 20


def loaded(vmas: VMAs) -> list[str]:
    """Return the names of the other allocators among the libraries that ``vmas`` map."""
    names = {name for name in vmas.name if name.startswith("/")}
    return [allocator for allocator, spelling in LIBRARIES.items()
            if any(spelling.search(name) for name in names)]


def linked(target: Target) -> list[str]:
    """Return the names of the allocators linked into a process's program; see linked_into.

    There are none where we may not read the program. Raises ProcessGone.
    """
    with opened_program(target) as fd:
        return [] if fd is None else linked_into(fd)


def linked_into(fd: int) -> list[str]:
    """Return the names of the allocators whose texts are constants in the ELF file ``fd``.

    At most 64 MiB of them are read. Raises OSError.
    """
    found: set[str] = set()
    left = MOST
    for section in sections(fd):
        if section.name.startswith(CONSTANTS):
            size = min(section.size, left)
            left -= size
            for at in range(section.at, section.at + size, AT_ONCE):
                end = min(at + AT_ONCE + LONGEST, section.at + size)
                part = pread(fd, end - at, at)
                found |= {name for name, text in TEXTS.items() if text in part}
    return [name for name in TEXTS if name in found]
