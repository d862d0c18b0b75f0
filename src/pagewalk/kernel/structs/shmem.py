"""Which pages of a shmem object are in swap, from its page cache, whose xarray keeps swap entries.

smaps adds them to Swap (mm/shmem.c, shmem_partial_swap_usage). Before cachestat(2), new in 6.5, no
interface reports them for part of an object.
"""

from __future__ import annotations

import errno as errnos

import numpy as np

from pagewalk.kernel.readers.memory import PAGE, read_structs
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.maple import Torn
from pagewalk.model.columns import U64, Bool
from pagewalk.model.ranges import intersect

_ATTEMPTS = 5
# include/linux/xarray.h: a node has 64 slots; the low bits of an entry mark it as a value (a swap
# slot), a node, or (small numbers) a sibling: the slot of the entry that this one is part of.
_SLOTS, _BITS = 64, 6
_VALUE, _TAG, _INTERNAL = np.uint64(1), np.uint64(3), np.uint64(2)
_LAST_SIBLING, _LARGEST_RESERVED = np.uint64(62 << 2 | 2), np.uint64(4096)


def swapped_ranges(kernel: Kernel, file: int) -> U64:
    """Return the ranges (u64[n, 2], offsets in the object, sorted) that are in swap.

    ``file`` is the address of a struct file of a shmem object. Raises OSError when its page cache
    changed during every attempt, or cannot be read.
    """
    inode = kernel.field("file", file, "f_inode")
    info = inode - kernel.btf.offset("shmem_inode_info", "vfs_inode")
    if not kernel.field("shmem_inode_info", info, "swapped"):
        return np.zeros((0, 2), np.uint64)
    mapping = kernel.field("file", file, "f_mapping")
    for _ in range(_ATTEMPTS):
        try:
            return _values(kernel, kernel.field("address_space", mapping, "i_pages.xa_head"))
        except Torn:
            continue
    raise OSError(errnos.EAGAIN, "the page cache of a shmem object changed during each read")


def _values(kernel: Kernel, head: int) -> U64:
    # The values of the xarray by index, read level by level; a large one is repeated for each slot.
    if head & 1:
        return np.array([[0, PAGE]], np.uint64)
    found = [np.zeros((0, 2), np.uint64)]
    nodes, first = np.array([head], np.uint64), np.zeros(1, np.uint64)
    nodes, first = nodes[_is_node(nodes)], first[_is_node(nodes)]
    shift = kernel.field("xa_node", head - 2, "shift") if len(nodes) else 0
    while len(nodes):
        slots = _read_slots(kernel, nodes - _INTERNAL, shift)
        step = np.arange(_SLOTS, dtype=np.uint64) << np.uint64(shift)
        index = first[:, None] + step
        start = index[slots & _VALUE != 0] * np.uint64(PAGE)
        found.append(np.stack([start, start + np.uint64(PAGE << shift)], axis=1))
        below = _is_node(slots)
        nodes, first, shift = slots[below], index[below], shift - _BITS
    ranges = np.concatenate(found)
    return ranges[np.argsort(ranges[:, 0])]


def _is_node(entry: U64) -> Bool:
    node: Bool = (entry & _TAG == _INTERNAL) & (entry > _LARGEST_RESERVED)
    return node


def _read_slots(kernel: Kernel, nodes: U64, shift: int) -> U64:
    # u64[n, 64], siblings replaced by the entry that they are part of.
    rows, errno = read_structs(kernel.memory, nodes, kernel.btf.size("xa_node"))
    if errno.any() or shift < 0 or (kernel.column(rows, "xa_node", "shift") != shift).any():
        raise Torn
    at = kernel.btf.offset("xa_node", "slots")
    slots: U64 = rows[:, at : at + 8 * _SLOTS].view(np.uint64)
    sibling = (slots & _TAG == _INTERNAL) & (slots <= _LAST_SIBLING)
    row, slot = np.nonzero(sibling)
    slots[row, slot] = slots[row, (slots[row, slot] >> np.uint64(2)).astype(np.int64)]
    return slots


def covered(ranges: U64, offset: int, size: int) -> int:
    """Return how many bytes of [``offset``, + ``size``) ``ranges`` u64[n, 2] cover."""
    part = np.array([[offset, offset + size]], np.uint64)
    pieces, _, _ = intersect(ranges, part)
    return int((pieces[:, 1] - pieces[:, 0]).sum())
