"""What the kernel knows about each mapping besides its address: operations and file inode."""

from __future__ import annotations

import ctypes
import mmap
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import read_structs
from pagewalk.kernel.structs.direct_map import own_mm
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.maple import Torn
from pagewalk.kernel.structs.vmas import RawVmas, read_vmas
from pagewalk.model.columns import U64, Bool
from pagewalk.model.errors import SourceUnavailable

_ATTEMPTS = 5
# include/uapi/linux/magic.h, include/linux/fs.h, include/uapi/linux/stat.h
_TMPFS, _HUGETLBFS = 0x01021994, 0x958458F6
_S_DAX = 1 << 13
_KIND, _REGULAR = 0xF000, 0x8000


class Mappings(NamedTuple):
    """The VMAs (``vma``), and one row per VMA about its operations and its file.

    ``huge_fault`` (bool): it has a huge_fault operation; ``sized`` (bool): it has a pagesize
    operation, so its page size may differ from the base page; ``dax``, ``shmem``, ``regular``
    (bool): the kind of its file; ``anon_shmem`` (bool): shmem without a name when it was mapped
    (shared anonymous memory, a memfd); ``block`` (u64): bytes of a hugetlb page, 0 for other
    memory; ``mount`` (u64): the huge= option of a tmpfs mount. ``mm_flags`` is the int flags of the
    mm_struct.
    """

    vma: RawVmas
    huge_fault: Bool
    sized: Bool
    dax: Bool
    shmem: Bool
    anon_shmem: Bool
    regular: Bool
    block: U64
    mount: U64
    mm_flags: int


def read_mappings(kernel: Kernel, mm: int) -> Mappings:
    """Return the VMAs of the mm_struct at ``mm`` and what they map; raises SourceUnavailable."""
    for _ in range(_ATTEMPTS):
        try:
            return _read_once(kernel, mm, read_vmas(kernel, mm))
        except (Torn, OSError):
            continue
    raise SourceUnavailable("kernel memory", "the files of its VMAs changed", "use --freeze")


def _read_once(kernel: Kernel, mm: int, vma: RawVmas) -> Mappings:
    operations = _members(kernel, "vm_operations_struct", vma.ops, ("huge_fault", "pagesize"))
    file = _members(kernel, "file", vma.file, ("f_mapping", "f_inode"))
    host = _members(kernel, "address_space", file["f_mapping"], ("host",))["host"]
    inode = _members(kernel, "inode", file["f_inode"], ("i_mode", "i_sb"))
    mount = _members(kernel, "super_block", inode["i_sb"], ("s_magic", "s_blocksize", "s_fs_info"))
    shmem = mount["s_magic"] == np.uint64(_TMPFS)
    hugetlb = mount["s_magic"] == np.uint64(_HUGETLBFS)
    info = np.where(shmem, mount["s_fs_info"], np.uint64(0))
    regular = inode["i_mode"] & np.uint64(_KIND) == _REGULAR
    return Mappings(
        vma=vma,
        huge_fault=operations["huge_fault"] != 0,
        sized=operations["pagesize"] != 0,
        dax=_members(kernel, "inode", host, ("i_flags",))["i_flags"] & np.uint64(_S_DAX) != 0,
        shmem=shmem & regular,
        anon_shmem=shmem & (vma.ops == np.uint64(_anon_shmem_ops(kernel) if shmem.any() else 0)),
        regular=regular,
        block=np.where(hugetlb, mount["s_blocksize"], np.uint64(0)),
        mount=_members(kernel, "shmem_sb_info", info, ("huge",))["huge"],
        mm_flags=kernel.field("mm_struct", mm, "flags"),
    )


def _anon_shmem_ops(kernel: Kernel) -> int:
    # shmem_anon_vm_ops, which shmem_mmap() gives to a file without a name: taken from one of ours.
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) as own:
        byte = ctypes.c_char.from_buffer(own)
        address = ctypes.addressof(byte)
        del byte  # otherwise the mapping could not be closed
        mine = read_vmas(kernel, own_mm(kernel))
    at = np.flatnonzero((mine.start <= np.uint64(address)) & (np.uint64(address) < mine.end))
    return int(mine.ops[at[0]]) if len(at) else 0


def _members(kernel: Kernel, struct: str, address: U64, paths: tuple[str, ...]) -> dict[str, U64]:
    # Members of the structs at `address` (u64[n]), 0 where the address is 0. Many VMAs share one.
    places, back = np.unique(address, return_inverse=True)
    there = places != 0
    out = {path: np.zeros(len(places), np.uint64) for path in paths}
    if there.any():
        rows, errno = read_structs(kernel.memory, places[there], kernel.btf.size(struct))
        if errno.any():
            raise Torn
        for path, column in out.items():
            column[there] = kernel.column(rows, struct, path)
    return {path: column[back] for path, column in out.items()}
