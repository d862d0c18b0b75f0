"""/proc/PID/mountinfo: what is mounted where, as a process sees it."""

import re
from typing import NamedTuple

from pagewalk.proc.files import rows

# Blanks in a field are escaped, so a dash between two blanks ends the optional fields
# (show_mountinfo, fs/proc_namespace.c). The source may be empty.
LINE = re.compile(
    rb"(?m)^(\d{1,10}) (\d{1,10}) (\d{1,4}):(\d{1,7}) ([^ \n]+) ([^ \n]+) [^\n]*? - ([^ \n]+)"
    rb" ([^\n]*)\n"
)
ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")


class Mount(NamedTuple):
    """One mount; ``dev`` is major << 32 | minor, ``options`` are those of the superblock.

    ``root`` is the directory of that file system that is seen at ``point``; in both, a blank, tab,
    newline or backslash is an octal escape (see unescaped). ``parent`` is the id of the mount that
    it is mounted on.
    """

    id: int
    dev: int
    point: bytes
    kind: bytes
    options: list[bytes]
    root: bytes
    parent: int


def parse_mounts(text: bytes) -> list[Mount]:
    """Return the mounts in a mountinfo file, in file order; raises BadText."""
    return [
        Mount(
            int(number), int(major) << 32 | int(minor), point, kind,
            rest.rpartition(b" ")[2].split(b","), root, int(parent),
        )
        for number, parent, major, minor, root, point, kind, rest in rows(LINE, text, "mountinfo")
    ]


def unescaped(field: bytes) -> bytes:
    """Return the bytes that a field of mountinfo stands for (mangle, fs/proc_namespace.c)."""
    return ESCAPE.sub(lambda octal: bytes([int(octal[1], 8)]), field)
