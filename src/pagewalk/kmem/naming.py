"""The VMAs of the maple tree with what /proc/PID/maps calls them, or without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pagewalk.kmem.vmas import Files, RawVmas
from pagewalk.pages import EXEC, I64, READ, SHARED, U64, WRITE, Backing, Bool, VMAs
from pagewalk.proc.maps import backing_of
from pagewalk.ranges import overlapping

# include/linux/mm.h
VM_READ, VM_WRITE, VM_EXEC, VM_MAYSHARE, VM_HUGETLB = 0x1, 0x2, 0x4, 0x80, 0x400000


def agreeing(named: VMAs, raw: RawVmas) -> Bool:
    """Return a mask of the VMAs of maps that the maple tree has too, with the same edges."""
    if len(raw.start) == 0:
        return np.zeros(len(named), bool)
    at = np.minimum(np.searchsorted(raw.start, named.start), len(raw.start) - 1)
    same: Bool = (raw.start[at] == named.start) & (raw.end[at] == named.end)
    return same


def flags_of(named: VMAs, raw: RawVmas | None) -> U64:
    # The vm_flags of each VMA of maps; 0 where they are not known. The gate VMA is in no tree: it
    # has its permissions, whose bits are the same, and no others (vsyscall_64.c).
    flags = np.where(named.gate, named.perms, 0).astype(np.uint64)
    if raw is not None:
        known = agreeing(named, raw)
        flags[known] = raw.flags[np.searchsorted(raw.start, named.start[known])]
    return flags


def with_flags(vmas: VMAs, flags: U64) -> VMAs:
    """Return ``vmas`` with vm_flags; what they call a PFN map is no longer hidden."""
    backing = vmas.backing.copy()
    seen = (backing == Backing.HIDDEN.value) & (flags != 0)
    backing[seen] = Backing.KERNEL
    backing[flags & np.uint64(VM_HUGETLB) != 0] = Backing.HUGETLB
    return replace(vmas, flags=flags, backing=backing)


def pieced(raw: VMAs, named: VMAs, lost: U64, user_end: int) -> tuple[VMAs, I64]:
    """Return the VMAs of the maple tree (``raw``, as unnamed() has them) as far as they are known,
    when maps is of another moment, and the bytes of each that only maps tells of (i64).

    A name is that of the VMA with the same edges, or that one was a part of. What lies in ``lost``
    u64[k, 2], of which the maple tree told nothing, is what maps told, without flags; so is the
    gate VMA.
    """
    assert raw.flags is not None
    at = np.searchsorted(named.start, raw.end) - 1
    same = (at >= 0) & (named.end[at] > raw.start) & ((named.inode[at] != 0) == (raw.inode != 0))
    rows = zip(same.tolist(), at.tolist(), raw.name, strict=True)
    names = tuple(named.name[row] if found else own for found, row, own in rows)
    dev, inode, backing = (
        np.where(same, getattr(named, name)[at], getattr(raw, name))
        for name in ("dev", "inode", "backing")
    )
    vmas = with_flags(replace(raw, dev=dev, inode=inode, backing=backing, name=names), raw.flags)
    above = named.start >= np.uint64(user_end)
    only = overlapping(named.ranges, lost) & ~overlapping(named.ranges, raw.ranges) & ~above
    return _merged(vmas, named, above | only), named.size[only].astype(np.int64)


def _merged(vmas: VMAs, named: VMAs, also: Bool) -> VMAs:
    # `vmas` with those of `named` that `also` marks, by ascending address.
    assert vmas.flags is not None
    extra = np.flatnonzero(also)
    if not len(extra):
        return vmas
    order = np.argsort(np.concatenate([vmas.start, named.start[extra]]), kind="stable")
    names = vmas.name + tuple(named.name[row] for row in extra.tolist())
    columns = {
        name: np.concatenate([getattr(vmas, name), getattr(named, name)[extra]])[order]
        for name in ("start", "end", "perms", "offset", "dev", "inode", "backing")
    }
    flags = np.concatenate([vmas.flags, np.zeros(len(extra), np.uint64)])[order]
    return VMAs(**columns, name=tuple(names[row] for row in order.tolist()), flags=flags)


def unnamed(raw: RawVmas, files: Files, filesystems: dict[int, str]) -> VMAs:
    """Return raw VMAs whose names maps does not tell: a file is named by its device and inode."""
    dev = files.major.astype(np.uint64) << np.uint64(32) | files.minor
    names = tuple(
        f"/dev {major}:{minor} inode {inode}" if inode else ""
        for major, minor, inode in zip(
            files.major.tolist(), files.minor.tolist(), files.inode.tolist(), strict=True
        )
    )
    perms = np.zeros(len(raw.start), np.uint8)
    for flag, bit in ((VM_READ, READ), (VM_WRITE, WRITE), (VM_EXEC, EXEC), (VM_MAYSHARE, SHARED)):
        perms[raw.flags & np.uint64(flag) != 0] |= bit
    backing = np.array(
        [
            backing_of(name, int(inode), filesystems.get(int(device), ""))
            for name, inode, device in zip(names, files.inode, dev, strict=True)
        ],
        np.uint8,
    )
    offset = np.where(files.inode != 0, raw.offset, 0).astype(np.uint64)
    vmas = VMAs(raw.start, raw.end, perms, offset, dev, files.inode, backing, names)
    return with_flags(vmas, raw.flags)
