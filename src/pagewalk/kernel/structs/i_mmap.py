"""The page cache that the VMAs of a file or of a SysV segment map, and those VMAs (i_mmap)."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.structs.direct_map import DirectMap, own_mm
from pagewalk.kernel.structs.gather import gather, in_direct_map
from pagewalk.kernel.structs.inodes import file_system_names
from pagewalk.kernel.structs.interval_tree import I_MMAP, overlapping
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import file_behind
from pagewalk.kernel.structs.vmas import RawVmas, read_at, read_vmas
from pagewalk.kernel.structs.xarray import held
from pagewalk.model.columns import U64

# File systems whose files have pages of their own. What is mapped of a file on another one, as an
# overlay, may be a file below.
OWN_PAGES = (
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "hugetlbfs", "iso9660", "msdos",
    "nfs", "nfs4", "ramfs", "squashfs", "tmpfs", "vfat", "xfs",
)  # fmt: skip
_KIND, _REGULAR = 0xF000, 0x8000  # include/uapi/linux/stat.h
_SHM = 2  # IPC_SHM_IDS, ipc/util.h
_LAST_PAGE = np.full(1, np.iinfo(np.uint64).max)


def page_cache_of(kernel: Kernel, fd: int) -> int | None:
    """Return the address_space that is mapped of the regular file behind our descriptor ``fd``.

    None if that may be another file's. Raises OSError, NotInBtf.
    """
    inode = kernel.field("file", file_behind(kernel, fd), "f_inode")
    found = kernel.fields("inode", inode, ("i_mode", "i_sb", "i_mapping"))
    (name,) = file_system_names(kernel, np.array([found["i_sb"]], np.uint64))
    regular = found["i_mode"] & _KIND == _REGULAR
    return found["i_mapping"] if regular and name in OWN_PAGES else None


def page_cache_at(kernel: Kernel, address: int) -> int | None:
    """Return the address_space of the file that we have mapped at ``address``, None without one.

    Raises OSError, SourceUnavailable.
    """
    mine = read_vmas(kernel, own_mm(kernel))
    row = int(np.searchsorted(mine.start, np.uint64(address), side="right")) - 1
    file = int(mine.file[row]) if row >= 0 and address < int(mine.end[row]) else 0
    return kernel.field("file", file, "f_mapping") if file else None


def page_cache_of_segment(kernel: Kernel, shmid: int) -> int | None:
    """Return the address_space of SysV segment ``shmid`` of our IPC namespace, None without one.

    Raises OSError, NotInBtf.
    """
    namespaces = kernel.field("task_struct", kernel.current, "nsproxy")
    ids = kernel.field("nsproxy", namespaces, "ipc_ns") + kernel.btf.offset("ipc_namespace", "ids")
    ids += _SHM * kernel.btf.size("ipc_ids")
    segments, _ = held(kernel, kernel.field("ipc_ids", ids, "ipcs_idr.idr_rt.xa_head"))
    segments = segments - np.uint64(kernel.btf.offset("shmid_kernel", "shm_perm"))
    found, there = gather(kernel, "shmid_kernel", segments, ("shm_perm.id", "shm_file"))
    rows = np.flatnonzero(there & (found["shm_perm.id"] == np.uint64(shmid)))
    if not len(rows):
        return None
    return kernel.field("file", int(found["shm_file"][rows[0]]), "f_mapping")


def mapped_by(
    kernel: Kernel, direct_map: DirectMap, mapping: int, most: int
) -> tuple[RawVmas, U64, bool]:
    """Return the VMAs that map the address_space ``mapping``, the mm_struct of each, and if these
    are all: no more than ``most`` are looked at. Raises OSError, NotInBtf."""
    root = np.array([kernel.field("address_space", mapping, "i_mmap.rb_root.rb_node")], np.uint64)
    found = overlapping(
        kernel, direct_map, I_MMAP, root, np.zeros_like(root), _LAST_PAGE, most)
    vma, mm, there = read_at(kernel, np.sort(found.vma))
    there &= in_direct_map(direct_map, mm)
    return RawVmas(*(column[there] for column in vma)), mm[there], found.complete
