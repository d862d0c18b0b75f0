"""The VMAs of a process as the kernel keeps them: struct vm_area_struct, as columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from pagewalk.errors import SourceUnavailable, Unsupported
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.maple import Entries, Torn, read_maple_tree
from pagewalk.kmem.memory import read_structs, read_words
from pagewalk.pages import U32, U64

_ATTEMPTS = 20
_MINOR_BITS = np.uint64(20)  # include/linux/kdev_t.h


class RawVmas(NamedTuple):
    """Hold one row per VMA, by ascending address.

    ``address`` u64 of the vm_area_struct; ``start``, ``end`` u64, user addresses; ``flags`` u64,
    vm_flags with the protection key and the rest; ``offset`` u64 bytes into the file (or, of an
    anonymous VMA, its pgoff in bytes); ``file``, ``ops`` and ``anon_vma`` u64, the addresses of its
    struct file, vm_operations_struct and anon_vma, 0 where it has none.
    """

    address: U64
    start: U64
    end: U64
    flags: U64
    offset: U64
    file: U64
    ops: U64
    anon_vma: U64


class Files(NamedTuple):
    """Hold ``inode`` u64, ``major`` and ``minor`` u32 of each VMA's file, 0 when anonymous."""

    inode: U64
    major: U32
    minor: U32


_Answer = TypeVar("_Answer")


def read_vmas(kernel: Kernel, mm: int) -> RawVmas:
    """Read the VMAs of the mm_struct at ``mm``, consistent: no lock is taken, so it reads again
    until the tree, the VMAs and the mm's own count agree.

    Raises Unsupported before 6.1, SourceUnavailable when they change all the time.
    """
    return _consistent(kernel, lambda: _read_once(kernel, mm))


def read_edges(kernel: Kernel, mm: int) -> U64:
    """Read u64[n, 2], where the VMAs of the mm_struct at ``mm`` lie; raises as read_vmas does."""
    return _consistent(kernel, lambda: _edges(_tree(kernel, mm)))


def read_files(kernel: Kernel, file: U64) -> Files:
    """Read what the struct files at ``file`` (u64[n], 0 for none) are of.

    Raises SourceUnavailable when they change all the time.
    """
    return _consistent(kernel, lambda: _identify(kernel, file))


def _consistent(kernel: Kernel, read: Callable[[], _Answer]) -> _Answer:
    if not kernel.btf.has("mm_struct", "mm_mt"):
        raise Unsupported("maple tree of VMAs", "6.1")
    for _ in range(_ATTEMPTS):
        try:
            return read()
        except (Torn, OSError):
            continue
    raise SourceUnavailable(
        "kernel memory", f"its VMAs changed in each of {_ATTEMPTS} reads", "freeze the target"
    )


def _tree(kernel: Kernel, mm: int) -> Entries:
    return read_maple_tree(kernel, kernel.field("mm_struct", mm, "mm_mt.ma_root"))


def _edges(tree: Entries) -> U64:
    return np.stack([tree.first, tree.last + np.uint64(1)], axis=1)


def _read_once(kernel: Kernel, mm: int) -> RawVmas:
    entries = _tree(kernel, mm)
    size = kernel.btf.size("vm_area_struct")
    rows, errno = read_structs(kernel.memory, entries.entry, size)
    if errno.any():
        raise Torn

    def column(path: str) -> U64:
        return kernel.column(rows, "vm_area_struct", path).astype(np.uint64)

    start, end, file = column("vm_start"), column("vm_end"), column("vm_file")
    _check(kernel, mm, entries, start, end, column("vm_mm"))
    return RawVmas(
        address=entries.entry,
        start=start,
        end=end,
        flags=column("vm_flags"),
        offset=column("vm_pgoff") * np.uint64(4096),
        file=file,
        ops=column("vm_ops"),
        anon_vma=column("anon_vma"),
    )


def _check(kernel: Kernel, mm: int, tree: Entries, start: U64, end: U64, owner: U64) -> None:
    # A VMA that was freed and reused meanwhile has another mm or another range.
    same_range = (start == tree.first) & (end - np.uint64(1) == tree.last)
    if not same_range.all() or (owner != np.uint64(mm)).any():
        raise Torn
    if kernel.field("mm_struct", mm, "map_count") != len(start):
        raise Torn


def _identify(kernel: Kernel, file: U64) -> Files:
    # file -> f_inode -> i_ino, i_sb -> s_dev, each step once for all VMAs that have a file.
    has = file != 0
    inode, device = np.zeros(len(file), np.uint64), np.zeros(len(file), np.uint64)
    inodes = _follow(kernel, "file", file[has], "f_inode")
    inode[has] = _follow(kernel, "inode", inodes, "i_ino")
    super_blocks = _follow(kernel, "inode", inodes, "i_sb")
    device[has] = _follow(kernel, "super_block", super_blocks, "s_dev") & np.uint64(0xFFFFFFFF)
    major = (device >> _MINOR_BITS).astype(np.uint32)
    return Files(inode, major, (device & np.uint64((1 << 20) - 1)).astype(np.uint32))


def _follow(kernel: Kernel, struct: str, addresses: U64, path: str) -> U64:
    words, errno = read_words(kernel.memory, addresses + np.uint64(kernel.btf.offset(struct, path)))
    if errno.any():
        raise Torn
    return words
