"""Whether a memory object ends with processes, from the kernel's own reference counts.

An unlinked inode goes with its last dentry, a dentry with the last file open on it, and a file with
its last reference, which is in a descriptor table, a VMA, or somewhere that cannot be searched (a
message on a socket, a loop device). So the counts are compared with the number of references that
these processes hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import read_bytes, read_words
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.vmas import read_files, read_vmas
from pagewalk.model.columns import I64, U64, Bool
from pagewalk.model.errors import SourceUnavailable
from pagewalk.model.ranges import distinct

# A thread that is using a file holds a reference for a moment; a lasting holder always does.
_LOOKS = 5
_MOST_FILES = 1 << 20
_HALF = np.uint64(0xFFFFFFFF)


class Holder(NamedTuple):
    """A process that may hold objects, by the addresses of its structs."""

    task: int
    mm: int


def ended_by(
    kernel: Kernel, holders: Sequence[Holder], keys: list[tuple[int, int]]
) -> list[bool | None]:
    """Return whether the object of each of ``keys`` (dev, inode) ends when all ``holders`` do.

    None for an object whose counts changed on every attempt.
    """
    found: list[bool | None] = [None] * len(keys)
    for _ in range(_LOOKS):
        try:
            now = _look(kernel, holders, keys)
        except (OSError, SourceUnavailable, LookupError):
            continue
        found = [before or answer for before, answer in zip(found, now, strict=True)]
        if all(found):
            break
    return found


def _look(
    kernel: Kernel, holders: Sequence[Holder], keys: list[tuple[int, int]]
) -> list[bool | None]:
    file, mine = np.unique(_references(kernel, holders), return_counts=True)
    found = read_files(kernel, file)
    dev = found.major.astype(np.uint64) << np.uint64(32) | found.minor.astype(np.uint64)
    whole = _file_counts(kernel, file) == mine
    dentry = _words(kernel, file, "file", "f_path.dentry")
    inode = _words(kernel, file, "file", "f_inode")
    out: list[bool | None] = []
    for wanted_dev, wanted_inode in keys:
        rows = np.flatnonzero((dev == wanted_dev) & (found.inode == wanted_inode))
        out.append(_ends(kernel, inode[rows], dentry[rows], whole[rows]) if len(rows) else None)
    return out


def _references(kernel: Kernel, holders: Sequence[Holder]) -> U64:
    # The files that these processes refer to, one entry per reference.
    parts = [_descriptors(kernel, table, threads)
             for table, threads in _tables(kernel, holders).items()]
    for mm in {holder.mm for holder in holders}:
        program = kernel.field("mm_struct", mm, "exe_file")
        parts += [read_vmas(kernel, mm).file, np.array([program], np.uint64)]
    every = np.concatenate(parts)
    found: U64 = every[every != 0]
    return found


def _tables(kernel: Kernel, holders: Sequence[Holder]) -> dict[int, int]:
    # The descriptor tables, and how many threads of these processes have each.
    found: dict[int, int] = {}
    for task in {holder.task for holder in holders}:
        files = kernel.field("task_struct", task, "files")
        signal = kernel.field("task_struct", task, "signal")
        threads = kernel.field("signal_struct", signal, "nr_threads")
        found[files] = found.get(files, 0) + threads
    return found


def _descriptors(kernel: Kernel, files: int, threads: int) -> U64:
    # Empty if another process shares the table (CLONE_FILES): the table outlives these.
    if not files or kernel.field("files_struct", files, "count.counter") > threads:
        return np.zeros(0, np.uint64)
    table = kernel.fields("fdtable", kernel.field("files_struct", files, "fdt"), ("max_fds", "fd"))
    many = min(table["max_fds"], _MOST_FILES)
    return np.frombuffer(read_bytes(kernel.memory, table["fd"], 8 * many), np.uint64)


def _file_counts(kernel: Kernel, file: U64) -> I64:
    # Since 6.13 the count is one less than the references (include/linux/file_ref.h).
    if kernel.btf.has("file", "f_ref.refcnt.counter"):
        return _words(kernel, file, "file", "f_ref.refcnt.counter").astype(np.int64) + 1
    return _words(kernel, file, "file", "f_count.counter").astype(np.int64)


def _ends(kernel: Kernel, inode: U64, dentry: U64, whole: Bool) -> bool:
    dentries = distinct(dentry)
    names = _words(kernel, dentries, "dentry", "d_lockref.count") & _HALF
    counts = kernel.fields("inode", int(inode[0]), ("i_nlink", "i_count.counter"))
    return (
        bool(whole.all())
        and int(names.sum()) == len(dentry)
        and counts["i_count.counter"] == len(dentries)
        and counts["i_nlink"] == 0
    )


def _words(kernel: Kernel, addresses: U64, struct: str, path: str) -> U64:
    offset = kernel.btf.offset(struct, path)
    words, errno = read_words(kernel.memory, addresses + np.uint64(offset))
    if errno.any():
        raise OSError(int(errno.max()), f"{struct} cannot be read")
    return words
