"""Whose pages a page cache holds: from an address_space to its inode, file system and path."""

from __future__ import annotations

import errno as errnos
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.structs.dentries import read_paths
from pagewalk.kernel.structs.gather import gather, read_names
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import I32, I64, U8, U32, U64, Bool, Rows
from pagewalk.model.frames import Backing
from pagewalk.proc.files import decode_name

BLOCK_DEVICES = "bdev"  # the file system whose inodes are block devices
_MOST_ALIASES = 64  # names of one inode that are looked at
_NAME = 32  # bytes of a file system's name, far above any
_MINOR = np.uint64(20)  # dev_t in the kernel (include/linux/kdev_t.h)
# of a dentry that stands alone: that of an open block device, and of a file handle (d_obtain_alias)
_NO_NAME = (b"", b"/")
_CHUNK = 1 << 16  # mappings that are looked at together
# BDI_CAP_WRITEBACK (include/linux/backing-dev.h). Up to 5.9 this bit said the opposite.
_WRITEBACK = np.uint64(1)


class Inodes(Rows):
    """What each of ``mapping`` (u64, addresses of address_spaces) holds the pages of.

    ``inode`` u64, its number; ``dev`` u64 (major << 32 | minor) of its file system, of a block
    device its own; ``nlink`` u32; ``file_system`` its type's name. ``path`` is inside the file
    system: of several links that of the first one that is in the kernel's memory. It is None if no
    name is in memory, as that of a file that nobody has open may be. ``removed`` (bool): the name
    was removed, though there may be other links. ``detached`` (bool): it never had a place in a
    file system, and its path is only a name (memfd, SysV, shared anonymous memory) or, if it is
    known by a file handle or a device only, None. ``errno`` i32
    is 0, or why something is missing: ENOENT if the mapping has no pages any more; of a path
    ENAMETOOLONG if it is longer than can be opened, EAGAIN if it changed during each read, EFAULT
    if it cannot be read.
    """

    mapping: U64
    inode: U64
    dev: U64
    nlink: U32
    file_system: tuple[str, ...]
    path: tuple[str | None, ...]
    removed: Bool
    detached: Bool
    errno: I32


class FileSystems(NamedTuple):
    """Of each mapping the ``dev`` (u64, as in Inodes) and the ``row`` (i64) in ``names``.

    ``row`` is -1, and ``dev`` 0, if it has no pages any more. ``nlink`` u32 and ``detached`` (bool)
    as in Inodes: what has no link and is not detached was deleted.
    """

    dev: U64
    names: tuple[str, ...]
    row: I64
    nlink: U32
    detached: Bool


class _Found(NamedTuple):
    # The inode of each mapping, its members, and the dentry by which it is called (0: none).
    inode: U64
    super_block: U64
    number: U64
    nlink: U64
    device: U64
    alias: U64
    errno: I32


class _SuperBlocks(NamedTuple):
    # Each super block's number of a device, root dentry and type; and its row for each inode.
    dev: U64
    root: U64
    names: list[str]
    row: I64


def read_inodes(kernel: Kernel, mappings: U64) -> Inodes:
    """Return what each of ``mappings`` (u64[n], any order) belongs to, in that order."""
    found = _find(kernel, mappings)
    blocks = _super_blocks(kernel, found)
    errno = found.errno
    dentry, removed, alone = _dentries(kernel, found)
    has = np.flatnonzero(dentry)
    paths = read_paths(kernel, dentry[has])
    detached = alone & (dentry != blocks.root[blocks.row])
    path: list[str | None] = [None] * len(mappings)
    for row, raw, apart in zip(has.tolist(), paths.path, detached[has].tolist(), strict=True):
        if raw is not None and not (apart and raw in _NO_NAME):
            path[row] = decode_name(raw)
    errno[has] = paths.errno
    names = np.array([*blocks.names, ""], object)[blocks.row]
    return Inodes(
        mapping=mappings, inode=found.number, dev=_devices(found, blocks),
        nlink=found.nlink.astype(np.uint32), file_system=tuple(names.tolist()), path=tuple(path),
        removed=removed, detached=detached, errno=errno,
    )


def read_file_systems(kernel: Kernel, mappings: U64) -> FileSystems:
    """Return of which file system each of ``mappings`` (u64[n]) is, without their names."""
    names: dict[str, int] = {}
    count = len(mappings)
    dev, row = np.zeros(count, np.uint64), np.full(count, -1, np.int64)
    nlink, detached = np.zeros(count, np.uint32), np.zeros(count, bool)
    for first in range(0, count, _CHUNK):
        here = slice(first, first + _CHUNK)
        found = _find(kernel, mappings[here])
        blocks = _super_blocks(kernel, found)
        dev[here], nlink[here] = _devices(found, blocks), found.nlink
        rows = [names.setdefault(name, len(names)) for name in blocks.names]
        row[here] = np.array([*rows, -1], np.int64)[blocks.row]
        linked = found._replace(alias=np.where(found.nlink == 0, found.alias, np.uint64(0)))
        dentry, _, alone = _dentries(kernel, linked)
        detached[here] = alone & (dentry != blocks.root[blocks.row])
    return FileSystems(dev, tuple(names), row, nlink, detached)


def read_backing(kernel: Kernel, mappings: U64) -> U8:
    """Return the Backing (u8) of each of ``mappings`` (u64[n]): if its dirty pages are counted.

    They are (folio_account_dirtied, mm/page-writeback.c) where the super block's backing device
    writes them (mapping_can_writeback): not those of a ramfs or of secret memory.
    """
    found = np.full(len(mappings), Backing.UNTOLD.value, np.uint8)
    if not (kernel.btf.has("super_block", "s_bdi")
            and kernel.btf.has("backing_dev_info", "capabilities")):
        return found
    for first in range(0, len(mappings), _CHUNK):
        here = slice(first, first + _CHUNK)
        every, row = np.unique(_find(kernel, mappings[here]).super_block, return_inverse=True)
        found[here] = _backing(kernel, every)[row]
    return found


def _backing(kernel: Kernel, blocks: U64) -> U8:
    # A block device's inode has the backing device of its disk, which always writes
    # (inode_to_bdi; bdi_alloc, mm/backing-dev.c).
    block, _ = gather(kernel, "super_block", blocks, ("s_bdi",))
    device, told = gather(kernel, "backing_dev_info", block["s_bdi"], ("capabilities",))
    written = device["capabilities"] & _WRITEBACK != 0
    disk = np.array([name == BLOCK_DEVICES for name in file_system_names(kernel, blocks)], bool)
    found = np.where(written, Backing.WRITTEN.value, Backing.KEPT.value)
    found[~told] = Backing.UNTOLD.value
    found[disk] = Backing.WRITTEN.value
    return found.astype(np.uint8)


def _find(kernel: Kernel, mappings: U64) -> _Found:
    cache, _ = gather(kernel, "address_space", mappings, ("host", "nrpages"))
    host = cache["host"]
    paths = ("i_sb", "i_ino", "i_nlink", "i_rdev", "i_dentry.first", "i_mapping")
    inode, there = gather(kernel, "inode", host, paths)
    own = host + np.uint64(kernel.btf.offset("inode", "i_data")) == mappings
    belongs = own | (inode.pop("i_mapping") == mappings)
    # An inode that was evicted has no pages; its memory may be something else already.
    gone = ~there | ~belongs | (cache["nrpages"] == 0)
    for column in (host, *inode.values()):
        column[gone] = 0
    return _Found(
        host, inode["i_sb"], inode["i_ino"], inode["i_nlink"], inode["i_rdev"],
        inode["i_dentry.first"], np.where(gone, errnos.ENOENT, 0).astype(np.int32),
    )


def _super_blocks(kernel: Kernel, found: _Found) -> _SuperBlocks:
    # The row of an inode that is gone is the one after the last.
    every, row = np.unique(found.super_block, return_inverse=True)
    gone = int(len(every) and every[0] == 0)
    every = every[gone:]
    row = np.where(found.super_block == 0, len(every), row - gone)
    block, _ = gather(kernel, "super_block", every, ("s_dev", "s_root"))
    dev, root = (np.append(column, np.uint64(0)) for column in block.values())
    return _SuperBlocks(dev, root, file_system_names(kernel, every), row)


def file_system_names(kernel: Kernel, blocks: U64) -> list[str]:
    """Return the type of each super block of ``blocks`` (u64[n]), "" if it cannot be read."""
    block, _ = gather(kernel, "super_block", blocks, ("s_type",))
    kind, _ = gather(kernel, "file_system_type", block["s_type"], ("name",))
    return [name or "" for name in read_names(kernel, kind["name"], _NAME)]


def _devices(found: _Found, blocks: _SuperBlocks) -> U64:
    block = np.array([*(name == BLOCK_DEVICES for name in blocks.names), False], bool)[blocks.row]
    dev = np.where(block, found.device, blocks.dev[blocks.row])
    minor = dev & ((np.uint64(1) << _MINOR) - np.uint64(1))
    return (dev >> _MINOR) << np.uint64(32) | minor


def _dentries(kernel: Kernel, found: _Found) -> tuple[U64, Bool, Bool]:
    # The first name of each inode that was not removed, else the first; whether it was removed;
    # whether it is its own parent.
    list_head = "d_u.d_alias" if kernel.btf.has("dentry", "d_u.d_alias") else "d_alias"
    paths = ("d_parent", "d_hash.pprev", "d_inode", f"{list_head}.next")
    offset = np.uint64(kernel.btf.offset("dentry", list_head))
    dentry = np.zeros_like(found.alias)
    removed, alone = np.zeros(len(dentry), bool), np.zeros(len(dentry), bool)
    rows, node = np.flatnonzero(found.alias), found.alias[found.alias != 0]
    for _ in range(_MOST_ALIASES):
        if not len(rows):
            break
        at = node - offset
        members, there = gather(kernel, "dentry", at, paths)
        parent, hashed, inode, after = members.values()
        good = there & (inode == found.inode[rows])
        named = good & ((hashed != 0) | (parent == at))
        taken = named | (good & (dentry[rows] == 0))
        dentry[rows[taken]], removed[rows[taken]] = at[taken], ~named[taken]
        alone[rows[taken]] = parent[taken] == at[taken]
        more = good & ~named & (after != 0)
        rows, node = rows[more], after[more]
    return dentry, removed, alone
