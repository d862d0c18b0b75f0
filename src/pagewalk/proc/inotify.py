"""inotify(7): have the kernel report that a file was written, or removed from a directory.

A cgroup's files are written through the file system, so a new limit is reported as well.
"""

from __future__ import annotations

import ctypes
import os
import struct

MODIFIED, DELETED = 1 << 1, 1 << 9  # IN_MODIFY, IN_DELETE, include/uapi/linux/inotify.h
EVENT = struct.Struct("iIII")  # struct inotify_event: watch, mask, cookie, length of the name


def open_inotify() -> int:
    """Return a new descriptor of inotify, which does not block; raises OSError."""
    return checked(ctypes.CDLL(None, use_errno=True).inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def add_watch(fd: int, path: str, what: int) -> int:
    """Have ``fd`` report ``what`` (MODIFIED, DELETED) of ``path``; return the watch's number.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return checked(libc.inotify_add_watch(fd, os.fsencode(path), what))


def checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def read_changes(fd: int) -> list[tuple[int, bytes]]:
    """Return what was reported since: the watch's number, and the name in a directory, or none."""
    try:
        text = os.read(fd, 1 << 16)
    except BlockingIOError:
        return []
    found, at = [], 0
    while at < len(text):
        watch, _, _, length = EVENT.unpack_from(text, at)
        at += EVENT.size
        found.append((watch, text[at : at + length].rstrip(b"\0")))
        at += length
    return found
