"""What an xarray of pointers holds, such as an idr: read level by level."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.readers.memory import read_structs
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import U64, Bool

# include/linux/xarray.h: a node has 64 slots, and is marked 2 in the low two bits of what points at
# it; small numbers marked so are reserved entries.
SLOTS, BITS = 64, 6
TAG, NODE, LARGEST_RESERVED = np.uint64(3), np.uint64(2), np.uint64(4096)
DEEPEST = -(-64 // BITS)  # levels


def is_node(entry: U64) -> Bool:
    """Return which entries (u64) point at a node."""
    node: Bool = (entry & TAG == NODE) & (entry > LARGEST_RESERVED)
    return node


def held(kernel: Kernel, head: int) -> tuple[U64, U64]:
    """Return the pointers (u64) in the xarray whose xa_head is ``head``, and their indices (u64).

    What a node held that went meanwhile is missing. Raises NotInBtf.
    """
    entries, index = np.array([head], np.uint64), np.zeros(1, np.uint64)
    for _ in range(DEEPEST):
        nodes = is_node(entries)
        if not nodes.any():
            break
        entries, index = _below(kernel, entries[nodes] - NODE, index[nodes])
    there = (entries & TAG == 0) & (entries != 0)
    return entries[there], index[there]


def _below(kernel: Kernel, nodes: U64, first: U64) -> tuple[U64, U64]:
    # All nodes of a level have the same shift.
    rows, errno = read_structs(kernel.memory, nodes, kernel.btf.size("xa_node"))
    shift = kernel.column(rows, "xa_node", "shift").astype(np.uint64)
    good = errno == 0
    at = kernel.btf.offset("xa_node", "slots")
    slots: U64 = np.ascontiguousarray(rows[:, at : at + 8 * SLOTS]).view(np.uint64)
    step = np.arange(SLOTS, dtype=np.uint64)
    index = first[:, None] + (step[None, :] << shift[:, None])
    return slots[good].reshape(-1), index[good].reshape(-1)
