"""Paths of dentries inside their file system: names and parents, read level by level.

Nothing is locked: what a rename changed between two looks is read again, and a chain of parents is
followed as far as a path can be long.
"""

from __future__ import annotations

import errno as errnos
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import PAGE
from pagewalk.kernel.structs.gather import gather
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import I32, I64, U32, U64

LONGEST = 4096  # bytes of a path that can be opened (PATH_MAX, include/uapi/linux/limits.h)
_DEEPEST = LONGEST // 2  # a level takes a slash and a byte
_ATTEMPTS = 4
_TOP, _LOST = -1, -2  # in place of the row of the parent
_NAMED = ("d_parent", "d_name.hash", "d_name.len", "d_name.name")


class Paths(NamedTuple):
    """For each dentry: ``path`` up to the dentry that is its own parent, ``top`` (u64 address).

    A dentry that is its own parent has its name as path. ``errno`` (i32) says why a path is None:
    it could not be read, it changed during each read (EAGAIN), or it is longer than any path that
    can be opened (ENAMETOOLONG).
    """

    path: list[bytes | None]
    top: U64
    errno: I32


class _Level(NamedTuple):
    # The dentries at one distance: their names, the row of each one's parent in the next level.
    at: U64
    name: list[bytes]
    up: I64
    errno: I32


def read_paths(kernel: Kernel, dentry: U64) -> Paths:
    """Return the path of each of ``dentry`` (u64[n])."""
    start, back = np.unique(dentry, return_inverse=True)
    levels: list[_Level] = []
    at = start
    while len(at):
        level, at = _read_level(kernel, at, last=len(levels) + 1 == _DEEPEST)
        levels.append(level)
    path: list[bytes | None] = []
    top, errno = np.zeros(0, np.uint64), np.zeros(0, np.int32)
    for level in reversed(levels):
        path, top, errno = _under(level, path, top, errno)
    for row in np.flatnonzero(top == start).tolist():  # its own parent
        path[row] = levels[0].name[row]
    return Paths([path[row] for row in back.tolist()], top[back], errno[back])


def _read_level(kernel: Kernel, at: U64, *, last: bool) -> tuple[_Level, U64]:
    # The level, and the addresses of the next one.
    parent, name, errno = _read_named(kernel, at)
    up = np.full(len(at), _LOST, np.int64)
    up[(errno == 0) & (parent == at)] = _TOP
    goes_on = np.flatnonzero((errno == 0) & (parent != at))
    if last:
        errno[goes_on] = errnos.ENAMETOOLONG
        goes_on = goes_on[:0]
    above, up[goes_on] = np.unique(parent[goes_on], return_inverse=True)
    return _Level(at, name, up, errno), above


def _under(
    level: _Level, above: list[bytes | None], tops: U64, errnos_: I32
) -> tuple[list[bytes | None], U64, I32]:
    # Paths, tops and errnos of a level from those of the level above.
    path = [_below(name, up, above) for name, up in zip(level.name, level.up.tolist(), strict=True)]
    top, errno = np.where(level.up == _TOP, level.at, np.uint64(0)), level.errno.copy()
    goes_on = np.flatnonzero(level.up >= 0)
    rows = level.up[goes_on]
    top[goes_on], errno[goes_on] = tops[rows], errnos_[rows]
    long = [row for row, known in enumerate(path) if known is None and not errno[row]]
    errno[long] = errnos.ENAMETOOLONG
    return path, top, errno


def _below(name: bytes, up: int, above: list[bytes | None]) -> bytes | None:
    if up < 0:
        return b"" if up == _TOP else None
    parent = above[up]
    if parent is None or len(parent) + 1 + len(name) >= LONGEST:
        return None
    return parent + b"/" + name


def _read_named(kernel: Kernel, at: U64) -> tuple[U64, list[bytes], I32]:
    # Parent and name of each dentry, as of one moment.
    parent, errno = np.zeros(len(at), np.uint64), np.full(len(at), errnos.EAGAIN, np.int32)
    name = [b""] * len(at)
    rows = np.arange(len(at))
    for _ in range(_ATTEMPTS):
        before, there = gather(kernel, "dentry", at[rows], _NAMED)
        texts, unread = _read_names(kernel, before["d_name.name"], before["d_name.len"])
        after, _ = gather(kernel, "dentry", at[rows], _NAMED)
        same = np.logical_and.reduce([before[path] == after[path] for path in _NAMED])
        parent[rows], errno[rows] = before["d_parent"], np.where(there, unread, errnos.EFAULT)
        for row, text in zip(rows.tolist(), texts, strict=True):
            name[row] = text
        errno[rows[~same]] = errnos.EAGAIN
        rows = rows[~same | (unread != 0)]
        if not len(rows):
            break
    return parent, name, errno


def _read_names(kernel: Kernel, at: U64, length: U64) -> tuple[list[bytes], I32]:
    # The `length` bytes at each of `at`; a pipe, a socket and an opened block device have none.
    errno = np.where(length <= PAGE, 0, errnos.EAGAIN).astype(np.int32)
    rows = np.flatnonzero((length > 0) & (length <= PAGE))
    texts, errno[rows] = _read_texts(kernel, at[rows], length[rows].astype(np.uint32))
    if len(rows) == len(at):
        return texts, errno
    name = [b""] * len(at)
    for row, text in zip(rows.tolist(), texts, strict=True):
        name[row] = text
    return name, errno


def _read_texts(kernel: Kernel, at: U64, length: U32) -> tuple[list[bytes], I32]:
    errno = np.zeros(len(at), np.int32)
    texts: list[bytes] = []
    for batch in kernel.memory.batches(at, length):
        here = slice(batch.first, batch.first + len(batch.errno))
        errno[here] = batch.errno
        ends = np.cumsum(length[here], dtype=np.int64).tolist()
        data = batch.data.tobytes()
        texts += [data[first:last] for first, last in pairwise([0, *ends])]
    return texts, errno
