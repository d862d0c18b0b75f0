"""The VMAs of the maple tree, with or without their names from /proc/PID/maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pagewalk.kernel.structs.vmas import Files, RawVmas
from pagewalk.model.bits import VM_EXEC, VM_HUGETLB, VM_MAYSHARE, VM_READ, VM_WRITE
from pagewalk.model.columns import EXEC, READ, SHARED, U8, U64, WRITE, Backing, Bool, VMAs
from pagewalk.proc.maps import backing_of


def agreeing(named: VMAs, raw: RawVmas) -> Bool:
    """Return a mask of the VMAs in maps that are in the maple tree too, with the same edges."""
    if len(raw.start) == 0:
        return np.zeros(len(named), bool)
    at = np.minimum(np.searchsorted(raw.start, named.start), len(raw.start) - 1)
    same: Bool = (raw.start[at] == named.start) & (raw.end[at] == named.end)
    return same


def flags_of(named: VMAs, raw: RawVmas | None) -> U64:
    # The vm_flags of each VMA in maps, 0 where they are not known. The gate VMA is not in the tree:
    # its flags are its permissions, which have the same bits, and no others (vsyscall_64.c).
    flags = np.where(named.gate, named.perms, 0).astype(np.uint64)
    if raw is not None:
        known = agreeing(named, raw)
        flags[known] = raw.flags[np.searchsorted(raw.start, named.start[known])]
    return flags


def with_flags(vmas: VMAs, flags: U64) -> VMAs:
    """Return ``vmas`` with vm_flags; VMAs that these show to be PFN maps are no longer hidden."""
    backing = vmas.backing.copy()
    seen = (backing == Backing.HIDDEN.value) & (flags != 0)
    backing[seen] = Backing.KERNEL
    backing[flags & np.uint64(VM_HUGETLB) != 0] = Backing.HUGETLB
    return replace(vmas, flags=flags, backing=backing)


def unnamed(raw: RawVmas, files: Files, filesystems: dict[int, str]) -> VMAs:
    """Return raw VMAs as VMAs without names from maps: a file is named by device and inode."""
    dev = files.major.astype(np.uint64) << np.uint64(32) | files.minor
    names = tuple(
        f"/dev {major}:{minor} inode {inode}" if major or minor else ""
        for major, minor, inode in zip(
            files.major.tolist(), files.minor.tolist(), files.inode.tolist(), strict=True
        )
    )
    perms = perms_of(raw.flags)
    backing = np.array(
        [
            backing_of(name, int(inode), filesystems.get(int(device), ""))
            for name, inode, device in zip(names, files.inode, dev, strict=True)
        ],
        np.uint8,
    )
    offset = np.where(dev != 0, raw.offset, 0).astype(np.uint64)
    vmas = VMAs(raw.start, raw.end, perms, offset, dev, files.inode, backing, names)
    return with_flags(vmas, raw.flags)


def perms_of(flags: U64) -> U8:
    """Return the permissions (u8, the bits of VMAs.perms) that vm_flags (u64) have in maps."""
    perms = np.zeros(len(flags), np.uint8)
    for flag, bit in ((VM_READ, READ), (VM_WRITE, WRITE), (VM_EXEC, EXEC), (VM_MAYSHARE, SHARED)):
        perms[flags & np.uint64(flag) != 0] |= bit
    return perms
