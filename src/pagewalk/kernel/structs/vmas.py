"""A process's VMAs as the kernel keeps them: struct vm_area_struct, as columns."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from pagewalk.kernel.readers.memory import PAGE, read_structs, read_words
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.maple import Slots, Torn, read_maple_tree
from pagewalk.model.bits import VM_DONTEXPAND
from pagewalk.model.columns import U8, U32, U64, Bool
from pagewalk.model.errors import SourceUnavailable, Unsupported
from pagewalk.model.ranges import overlapping, without

_ATTEMPTS = 8  # to read all VMAs at once
_LOOKS = 20  # at the ones that keep changing
# What must be equal in two readings of a VMA: everything that is reported about it.
_COMPARED = ("vm_start", "vm_end", "vm_flags", "vm_pgoff", "vm_file", "vm_mm", "vm_ops", "anon_vma")
_LOCKED = "vm_lock_seq"
_MINOR_BITS = np.uint64(20)  # include/linux/kdev_t.h


class RawVmas(NamedTuple):
    """One row per VMA, in ascending order of address.

    All are u64: ``address`` of the vm_area_struct; ``start``, ``end``, user addresses; ``flags``,
    vm_flags including the protection key; ``offset`` into the file in bytes (for an anonymous VMA
    its pgoff in bytes); ``file``, ``ops`` and ``anon_vma``, the addresses of its struct file,
    vm_operations_struct and anon_vma, 0 if it has none. ``locked`` is the mm's sequence number when
    the VMA was last locked for a change, 0 if the kernel does not keep it (before 6.4).
    """

    address: U64
    start: U64
    end: U64
    flags: U64
    offset: U64
    file: U64
    ops: U64
    anon_vma: U64
    locked: U64


class Files(NamedTuple):
    """``inode`` (u64), ``major`` and ``minor`` (u32) of each VMA's file, 0 when anonymous.

    ``known`` is a mask: where it is False, the file was closed during each reading, and the other
    columns are 0.
    """

    inode: U64
    major: U32
    minor: U32
    known: Bool


_Answer = TypeVar("_Answer")


def read_vmas(kernel: Kernel, mm: int) -> RawVmas:
    """Return the VMAs of the mm_struct at ``mm``, all as of one moment.

    No lock is taken, so it reads again until the tree, the VMAs and the mm's own count agree.

    Raises Unsupported before 6.1, SourceUnavailable when they keep changing.
    """
    return _consistent(kernel, lambda: _read_once(kernel, mm))


def read_each(kernel: Kernel, mm: int) -> tuple[RawVmas, U64]:
    """Return the VMAs of the mm_struct at ``mm``, read one by one, each at its own moment.

    Only what changes during the reading is read again. The second value, u64[n, 2] half open, is
    what changed every time: VMAs there are missing from the first. Raises like read_vmas.
    """
    wanted = np.array([[0, np.iinfo(np.uint64).max]], np.uint64)
    found = RawVmas(*(np.zeros(0, np.uint64) for _ in RawVmas._fields))
    reads = 0
    for _ in range(_LOOKS):
        try:
            new, torn = _read_stable(kernel, mm, wanted)
        except (Torn, OSError):
            continue
        reads += 1
        found, wanted = _merge(found, new, torn)
        if not len(wanted):
            break
    if not reads:
        raise _keep_changing(_LOOKS)
    return found, wanted


def read_at(kernel: Kernel, address: U64) -> tuple[RawVmas, U64, Bool]:
    """Return the VMAs at ``address`` (u64[n]), the mm_struct of each, and which could be read."""
    rows, errno = read_structs(kernel.memory, address, kernel.btf.size("vm_area_struct"))
    mm = kernel.column(rows, "vm_area_struct", "vm_mm").astype(np.uint64)
    return columns_of(kernel, address, rows), mm, errno == 0


def read_edges(kernel: Kernel, mm: int) -> U64:
    """Read the ranges (u64[n, 2]) of the VMAs of the mm_struct at ``mm``; raises like read_vmas."""
    return _consistent(kernel, lambda: _edges(_tree(kernel, mm)))


def read_files(kernel: Kernel, file: U64) -> Files:
    """Return the inode and device of each struct file at ``file`` (u64[n], 0 for none)."""
    for _ in range(_ATTEMPTS):
        files = _identify(kernel, file)
        if files.known.all():
            break
    return files


def still_maps(kernel: Kernel, mm: int, vmas: RawVmas, row: int) -> bool:
    """Return whether VMA ``row`` of ``vmas`` still maps the same file at the same address."""
    found = kernel.fields(
        "vm_area_struct", int(vmas.address[row]), ("vm_mm", "vm_start", "vm_end", "vm_file")
    )
    before = (mm, *(int(column[row]) for column in (vmas.start, vmas.end, vmas.file)))
    return tuple(found.values()) == before


def forked(kernel: Kernel, mm: int, before: RawVmas) -> bool:
    """Return whether the process has forked since its VMAs were read, as far as they show it.

    Since 6.5 fork locks each VMA to copy it (dup_mmap, mm/mmap.c), even those that nothing else
    locks once they exist: the vDSO's and the like, which may not be expanded. vfork copies nothing
    and locks nothing.
    """
    if not kernel.btf.has("vm_area_struct", _LOCKED):
        return False
    rows = np.flatnonzero(before.flags & np.uint64(VM_DONTEXPAND) != 0)
    size = kernel.btf.size("vm_area_struct")
    structs, errno = read_structs(kernel.memory, before.address[rows], size)
    now = columns_of(kernel, before.address[rows], structs)
    same = (errno == 0) & (kernel.column(structs, "vm_area_struct", "vm_mm") == mm)
    for column in ("start", "end", "flags"):
        same &= getattr(now, column) == getattr(before, column)[rows]
    return bool((same & (now.locked != before.locked[rows])).any())


def _consistent(kernel: Kernel, read: Callable[[], _Answer]) -> _Answer:
    if not kernel.btf.has("mm_struct", "mm_mt"):
        raise Unsupported("maple tree of VMAs", "6.1")
    for _ in range(_ATTEMPTS):
        try:
            return read()
        except (Torn, OSError):
            continue
    raise _keep_changing(_ATTEMPTS)


def _keep_changing(times: int) -> SourceUnavailable:
    return SourceUnavailable(
        "kernel memory", f"its VMAs changed during each of {times} reads", "use --freeze"
    )


def _tree(kernel: Kernel, mm: int) -> Slots:
    tree, torn = read_maple_tree(kernel, _root(kernel, mm))
    if len(torn):
        raise Torn
    return tree


def _root(kernel: Kernel, mm: int) -> int:
    return kernel.field("mm_struct", mm, "mm_mt.ma_root")


def _edges(tree: Slots) -> U64:
    return np.stack([tree.first, tree.last + np.uint64(1)], axis=1)


def _read_once(kernel: Kernel, mm: int) -> RawVmas:
    entries = _tree(kernel, mm)
    rows, errno = read_structs(kernel.memory, entries.entry, kernel.btf.size("vm_area_struct"))
    if errno.any() or not matching(kernel, mm, entries, rows).all():
        raise Torn
    if kernel.field("mm_struct", mm, "map_count") != len(rows):
        raise Torn
    return columns_of(kernel, entries.entry, rows)


def matching(kernel: Kernel, mm: int | U64, tree: Slots, rows: U8) -> Bool:
    """Return which of the vm_area_structs ``rows`` (u8[n, size]) are what ``tree`` and ``mm`` say.

    One that was freed and reused meanwhile has another mm or another range.
    """
    start, end, owner = (
        kernel.column(rows, "vm_area_struct", name) for name in ("vm_start", "vm_end", "vm_mm")
    )
    fits: Bool = (start == tree.first) & (end - np.uint64(1) == tree.last) & (owner == mm)
    return fits


def columns_of(kernel: Kernel, address: U64, rows: U8) -> RawVmas:
    """Return the vm_area_structs ``rows`` (u8[n, size]), which are at ``address`` (u64[n])."""

    def column(path: str) -> U64:
        return kernel.column(rows, "vm_area_struct", path).astype(np.uint64)

    has_locked = kernel.btf.has("vm_area_struct", _LOCKED)
    return RawVmas(
        address=address,
        start=column("vm_start"),
        end=column("vm_end"),
        flags=column("vm_flags"),
        offset=column("vm_pgoff") * np.uint64(PAGE),
        file=column("vm_file"),
        ops=column("vm_ops"),
        anon_vma=column("anon_vma"),
        locked=column(_LOCKED) if has_locked else np.zeros_like(address),
    )


def _read_stable(kernel: Kernel, mm: int, wanted: U64) -> tuple[RawVmas, U64]:
    # The VMAs that overlap `wanted` and are equal in two successive readings; where the rest are.
    tree, torn = read_maple_tree(kernel, _root(kernel, mm), wanted)
    size, paths = kernel.btf.size("vm_area_struct"), list(_COMPARED)
    # Since 6.4 a writer first stores the mm's sequence number in the VMA (vma_start_write).
    paths += [_LOCKED] if kernel.btf.has("vm_area_struct", _LOCKED) else []
    rows, errno = read_structs(kernel.memory, tree.entry, size)
    again, lost = read_structs(kernel.memory, tree.entry, size)
    same = (errno == 0) & (lost == 0) & matching(kernel, mm, tree, rows)
    for path in paths:
        one, other = (kernel.column(r, "vm_area_struct", path) for r in (rows, again))
        same &= one == other
    return (
        columns_of(kernel, tree.entry[same], rows[same]),
        np.concatenate([torn, _edges(tree)[~same]]),
    )


def _merge(found: RawVmas, new: RawVmas, torn: U64) -> tuple[RawVmas, U64]:
    # Both combined, the newer VMA where two overlap, and what must be read again: `torn`, and what
    # an older VMA covered and no newer one does.
    old = np.stack([found.start, found.end], axis=1)
    over = overlapping(old, np.stack([new.start, new.end], axis=1))
    kept = RawVmas(*(column[~over] for column in found))
    both = [np.concatenate(columns) for columns in zip(kept, new, strict=True)]
    order = np.argsort(both[RawVmas._fields.index("start")])
    merged = RawVmas(*(column[order] for column in both))
    known = np.stack([merged.start, merged.end], axis=1)
    return merged, without(np.concatenate([torn, old[over]]), known)


def _identify(kernel: Kernel, file: U64) -> Files:
    # file -> f_inode -> i_ino, i_sb -> s_dev, each step for all VMAs with a file at once.
    has = np.flatnonzero(file)
    inode, device = np.zeros(len(file), np.uint64), np.zeros(len(file), np.uint64)
    known = np.ones(len(file), bool)
    inodes, found = _follow(kernel, "file", file[has], "f_inode")
    inode[has], read = _follow(kernel, "inode", inodes, "i_ino")
    super_blocks, same = _follow(kernel, "inode", inodes, "i_sb")
    words, last = _follow(kernel, "super_block", super_blocks, "s_dev")
    device[has] = words & np.uint64(0xFFFFFFFF)
    known[has] = found & read & same & last
    inode[~known], device[~known] = 0, 0
    major = (device >> _MINOR_BITS).astype(np.uint32)
    minor = (device & np.uint64((1 << 20) - 1)).astype(np.uint32)
    return Files(inode, major, minor, known)


def _follow(kernel: Kernel, struct: str, addresses: U64, path: str) -> tuple[U64, Bool]:
    # The words, and a mask of those that could be read.
    words, errno = read_words(kernel.memory, addresses + np.uint64(kernel.btf.offset(struct, path)))
    return words, errno == 0
