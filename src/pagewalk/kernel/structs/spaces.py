"""The address spaces of many processes, found and read together: each step for all at once.

The way is that of ``task`` and ``vmas``. A process of which anything is not as expected is not
``known`` here: it has to be looked at on its own, which tries again and says what is wrong.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import read_structs, read_words
from pagewalk.kernel.structs.gather import gather, read_names
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.maple import read_maple_trees
from pagewalk.kernel.structs.task import PF_KTHREAD, file_table
from pagewalk.kernel.structs.vmas import RawVmas, columns_of, matching
from pagewalk.model.bits import VM_HUGETLB, VM_IO, VM_MIXEDMAP, VM_PFNMAP
from pagewalk.model.columns import I64, U8, U64, Backing, Bool

# Since 6.13 (see sources.kernel.places_of).
_SEQUENCE = "mm_lock_seq.sequence"
_MINOR_BITS = 20  # of a dev_t inside the kernel (include/linux/kdev_t.h)
_LOW, _ODD = np.uint64(0xFFFFFFFF), np.uint64(1)
# What a driver maps: which of its pages are memory, only a walk of its own looks at closely.
_DRIVERS = np.uint64(VM_PFNMAP | VM_IO | VM_MIXEDMAP)
_TYPE = 32  # bytes of the name of a file system's type


class Spaces(NamedTuple):
    """Address spaces, a row for each process.

    ``task`` and ``mm`` (u64) are addresses, ``started`` (u64) the task's start time, ``root`` (u64)
    the address of the PGD, ``many`` (i64) is how many VMAs it has. ``sequence`` (u64) changes when
    these do, and is odd meanwhile; None before 6.13. ``known`` bool: all of it is certain.
    """

    task: U64
    started: U64
    mm: U64
    root: U64
    many: I64
    sequence: U64 | None
    known: Bool


class SpacesVmas(NamedTuple):
    """The VMAs of several address spaces: ``owner`` i64, the row of each one's, ascending.

    ``known`` bool, by address space: its VMAs were read whole, and are of kinds that count alike
    with and without their names. ``backing`` u8 (Backing).
    """

    raw: RawVmas
    owner: I64
    backing: U8
    known: Bool


def read_spaces(kernel: Kernel, dirfds: Sequence[int]) -> Spaces:
    """Return the address spaces of the processes whose /proc directories are open as ``dirfds``."""
    struct_pid, known = _pids_behind(kernel, dirfds)
    node, read = _follow(kernel, "pid", struct_pid, "tasks")
    task = node - np.uint64(kernel.btf.offset("task_struct", "pid_links"))
    known &= read & (node != 0)
    words = {}
    for path in ("flags", "exit_state", "thread_pid", "start_boottime", "mm"):
        words[path], read = _follow(kernel, "task_struct", task, path)
        known &= read
    known &= (words["thread_pid"] == struct_pid) & (words["exit_state"] & _LOW == 0)
    known &= (words["flags"] & np.uint64(PF_KTHREAD) == 0) & (words["mm"] != 0)
    told, read = gather(kernel, "mm_struct", words["mm"], ("pgd", "map_count"))
    known &= read
    sequence = None
    if kernel.btf.has("mm_struct", _SEQUENCE):
        found, read = gather(kernel, "mm_struct", words["mm"], (_SEQUENCE,))
        sequence = found[_SEQUENCE]
        known &= read & (sequence & _ODD == 0)
    many = told["map_count"].astype(np.int64)
    return Spaces(task, words["start_boottime"], words["mm"], told["pgd"], many, sequence, known)


def still(kernel: Kernel, spaces: Spaces, vmas: SpacesVmas) -> Bool:
    """Return which of ``spaces`` belong to the same tasks as before, and have the same ``vmas``."""
    same = vmas.known.copy()
    for path, before in (("start_boottime", spaces.started), ("mm", spaces.mm)):
        now, read = _follow(kernel, "task_struct", spaces.task, path)
        same &= read & (now == before)
    if spaces.sequence is None:
        return same & _unmoved(vmas, read_their_vmas(kernel, spaces._replace(known=same)))
    told, read = gather(kernel, "mm_struct", spaces.mm, (_SEQUENCE,))
    same &= read & (told[_SEQUENCE] == spaces.sequence)
    return same


def _unmoved(before: SpacesVmas, now: SpacesVmas) -> Bool:
    # The address spaces whose VMAs were equal in both readings; a fork has locked some of them.
    count = len(before.known)
    many, left = (np.bincount(one.owner, minlength=count) for one in (before, now))
    same: Bool = before.known & now.known & (many == left)
    one, two = same[before.owner], same[now.owner]
    moved = np.zeros(int(one.sum()), bool)
    for old, new in zip(before.raw, now.raw, strict=True):
        moved |= old[one] != new[two]
    same[before.owner[one][moved]] = False
    return same


def read_their_vmas(kernel: Kernel, spaces: Spaces) -> SpacesVmas:
    """Return the VMAs of ``spaces``, of those that are known."""
    root, read = _follow(kernel, "mm_struct", spaces.mm, "mm_mt.ma_root")
    known = spaces.known & read
    tree, owner, whole = read_maple_trees(kernel, np.where(known, root, 0).astype(np.uint64))
    known &= whole
    rows, errno = read_structs(kernel.memory, tree.entry, kernel.btf.size("vm_area_struct"))
    torn = (errno != 0) | ~matching(kernel, spaces.mm[owner], tree, rows)
    known[owner[torn]] = False
    known &= np.bincount(owner, minlength=len(known)) == spaces.many
    raw = columns_of(kernel, tree.entry, rows)
    mine = known[owner]
    raw, owner = RawVmas(*(column[mine] for column in raw)), owner[mine]
    backing, plain = _backings(kernel, raw)
    known[owner[~plain]] = False
    mine = known[owner]
    return SpacesVmas(RawVmas(*(column[mine] for column in raw)), owner[mine], backing[mine], known)


def _backings(kernel: Kernel, raw: RawVmas) -> tuple[U8, Bool]:
    # What each VMA maps, as maps' name and file system say it too, and of which that is certain.
    # A VMA with operations but no file is one of the kernel's own, such as the vDSO.
    backing = np.where(raw.ops == 0, Backing.ANON.value, Backing.KERNEL.value).astype(np.uint8)
    certain = raw.flags & np.uint64(VM_HUGETLB) == 0
    has = np.flatnonzero(raw.file)
    file, back = np.unique(raw.file[has], return_inverse=True)
    shmem, plain = _regular_files(kernel, file)
    backing[has] = np.where(shmem[back], Backing.SHMEM.value, Backing.FILE.value)
    certain[has] &= plain[back] & (raw.flags[has] & _DRIVERS == 0)
    return backing, certain


def _regular_files(kernel: Kernel, file: U64) -> tuple[Bool, Bool]:
    # Which of these struct files are of tmpfs, and which are surely regular files.
    inode, plain = _follow(kernel, "file", file, "f_inode")
    told, read = gather(kernel, "inode", inode, ("i_mode", "i_sb"))
    plain &= read & (told["i_mode"] & np.uint64(0o170000) == np.uint64(stat.S_IFREG))
    super_block, back = np.unique(told["i_sb"], return_inverse=True)
    kind, _ = _follow(kernel, "super_block", super_block, "s_type")
    name, read = _follow(kernel, "file_system_type", kind, "name")
    types = read_names(kernel, name, _TYPE)
    shmem = np.array([said == "tmpfs" for said in types], bool)
    plain &= (read & np.array([said is not None for said in types], bool))[back]
    return shmem[back], plain


def _pids_behind(kernel: Kernel, dirfds: Sequence[int]) -> tuple[U64, Bool]:
    # The struct pid of each directory, and which are verified: see task.pid_behind.
    real = [os.fstat(fd) for fd in dirfds]
    device = [os.major(one.st_dev) << _MINOR_BITS | os.minor(one.st_dev) for one in real]
    slots = np.uint64(file_table(kernel)) + np.uint64(8) * np.array(dirfds, np.uint64)
    file, errno = read_words(kernel.memory, slots)
    inode, known = _follow(kernel, "file", file, "f_inode")
    known &= errno == 0
    told, read = gather(kernel, "inode", inode, ("i_ino", "i_sb"))
    known &= read & (told["i_ino"] == np.array([one.st_ino for one in real], np.uint64))
    number, read = _follow(kernel, "super_block", told["i_sb"], "s_dev")
    known &= read & (number & _LOW == np.array(device, np.uint64))
    start = inode - np.uint64(kernel.btf.offset("proc_inode", "vfs_inode"))
    struct_pid, read = _follow(kernel, "proc_inode", start, "pid")
    return struct_pid, known & read & (struct_pid != 0)


def _follow(kernel: Kernel, struct: str, addresses: U64, path: str) -> tuple[U64, Bool]:
    # The words, and a mask of those that could be read.
    words, errno = read_words(kernel.memory, addresses + np.uint64(kernel.btf.offset(struct, path)))
    return words, errno == 0
