"""/proc/PID/mountinfo: what is mounted where, as a process sees it."""

import os
import re
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

from pagewalk.model.errors import BadText
from pagewalk.proc.files import decode_name, read_bytes, rows

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


def mount_of(fdinfo: bytes) -> int:
    """Return the id of the mount that a descriptor is of, from its fdinfo; -1 if it is not told."""
    # fs/proc/fd.c, seq_show
    told = re.search(rb"(?m)^mnt_id:\t(\d+)$", fdinfo)
    return int(told[1]) if told else -1


# ---- file systems that may never answer


# Somebody else answers for them, over a network or in a process: whoever looks at a file may be
# kept waiting for ever, and cannot be killed.
ELSEWHERE = frozenset((
    b"9p", b"afs", b"autofs", b"beegfs", b"ceph", b"cifs", b"coda", b"fuse", b"fuseblk", b"gfs2",
    b"gpfs", b"lustre", b"ncpfs", b"nfs", b"nfs4", b"ocfs2", b"orangefs", b"smb3", b"smbfs",
    b"vboxsf", b"virtiofs",
))  # fmt: skip
LINKS = 40  # include/linux/namei.h, MAXSYMLINKS


def answered_elsewhere(proc: str = "/proc") -> dict[str, str]:
    """Return the type of each mounted file system that may never answer, by its mount point.

    Without the root: if that does not answer, nothing does. Empty if ``proc`` does not tell.
    """
    mounts: list[Mount] = []
    with suppress(OSError, BadText):
        mounts = parse_mounts(read_bytes(f"{proc}/self/mountinfo"))
    top = {mount.point: mount.kind for mount in mounts}  # of several at one point the last is seen
    return {decode_name(unescaped(point)): decode_name(kind) for point, kind in top.items()
            if point != b"/" and answers_elsewhere(kind)}


def answers_elsewhere(kind: bytes) -> bool:
    """Return whether a file system of type ``kind`` may never answer."""
    return kind in ELSEWHERE or kind.startswith(b"fuse.")


def real_path(path: str, apart: Collection[str]) -> tuple[str, str]:
    """Return ``path`` without links, and which of the mount points ``apart`` it leads to, else "".

    Nothing at or below ``apart`` is looked at: there the path is only put together.
    """
    real, left, links = "", path.split("/")[::-1], 0
    while left:
        name = left.pop()
        if name == "..":
            real = real.rpartition("/")[0]
        elif name not in ("", "."):
            at = f"{real}/{name}"
            if at in apart:
                return "/".join([at, *left[::-1]]), at
            link = _link(at) if links < LINKS else ""
            links += bool(link)
            real = at if not link else "" if link[:1] == "/" else real
            left += link.split("/")[::-1]
    return real or "/", ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except (OSError, ValueError):  # it is none, or is no path at all
        return ""
