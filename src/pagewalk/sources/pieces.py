"""Piece together the VMAs of a process that keeps changing them, from several readings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.vmas import Files, RawVmas, read_files
from pagewalk.model.columns import I64, U64, Bool, VMAs, Withheld
from pagewalk.model.ranges import overlapping, union
from pagewalk.sources.vma_names import unnamed, with_flags


def piece_together(
    kernel: Kernel,
    named: VMAs | None,
    raw: RawVmas,
    lost: U64,
    filesystems: dict[int, str],
    user_end: int,
) -> tuple[VMAs, Withheld | None]:
    """Return ``raw`` (see vmas.read_each) with the names from maps, and what is missing from it.

    ``named`` is what maps said at another moment, None if we may not read it; ``lost`` u64[n, 2] is
    where the VMAs changed during every reading.
    """
    files = read_files(kernel, raw.file)
    if not files.known.all():
        ranges = np.stack([raw.start, raw.end], axis=1)
        lost = union(np.concatenate([lost, ranges[~files.known]]))
        raw = RawVmas._make(column[files.known] for column in raw)
        files = Files._make(column[files.known] for column in files)
    vmas = unnamed(raw, files, filesystems)
    if named is None:
        return vmas, unread(lost, user_end)
    vmas, told = pieced(vmas, named, lost, user_end)
    return vmas, unflagged(told) if len(told) else None


def pieced(raw: VMAs, named: VMAs, lost: U64, user_end: int) -> tuple[VMAs, I64]:
    """Return the VMAs of the maple tree (``raw``, from unnamed()) with names from an older maps.

    A VMA takes the name of the one in maps with the same edges, or of the one that it was part of.
    In ``lost`` u64[k, 2], where the tree could not be read, VMAs are taken from maps, without
    flags, as is the gate VMA. The second value is the size in bytes (i64) of each VMA that is in
    maps only.
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
    # `vmas` and those of `named` that `also` marks, in ascending order of address.
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


def unread(lost: U64, user_end: int) -> Withheld | None:
    """Return the note on VMAs that were missed in ``lost`` u64[n, 2], None if it is empty."""
    if not len(lost):
        return None
    size = int((np.minimum(lost[:, 1], np.uint64(user_end)) - lost[:, 0]).sum())
    return Withheld(
        "VMAs",
        f"in {len(lost)} places, {size} bytes at most, they changed each time they were read, and"
        " maps cannot be read instead; --freeze stops the process during the walk",
        partial=True,
    )


def unflagged(told: I64) -> Withheld:
    """Return the note on VMAs of sizes ``told`` (i64 bytes) whose flags are not known."""
    return Withheld(
        f"vm_flags of {len(told)} VMAs",
        f"their {int(told.sum())} bytes were remapped each time they were read, so they are shown"
        " as in maps, without flags; --freeze stops the process during the walk",
        partial=True,
    )
