"""The maple tree, which holds a process's VMAs since 6.1 (lib/maple_tree.c), read level by level.

A node has 256 bytes: a parent pointer, pivots (the last index of each slot) and slots. A pointer
to a node carries the node's type in its low byte.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.memory import read_structs
from pagewalk.pages import U64

_NODE = 256
_TYPE_SHIFT, _TYPE_MASK = np.uint64(3), np.uint64(0xF)
# lib/maple_tree.c gives up no deeper: 31 bits hold the parent's slot at 16 slots a node.
_DEPTH = 16


class Entries(NamedTuple):
    """Hold the tree's ranges: [first, last] of indexes, both inside, and the stored pointer."""

    first: U64
    last: U64
    entry: U64


class _Shape(NamedTuple):
    # Where one node type keeps its pivots and slots, in words.
    pivots: slice
    slots: slice


class Torn(Exception):
    """Raised inside when a tree changed under the reader: read it again."""


def read_maple_tree(kernel: Kernel, root: int) -> Entries:
    """Read every range of the maple tree whose ``ma_root`` is ``root``.

    Raises Torn when a node was replaced meanwhile.
    """
    level = Entries(
        np.zeros(1, np.uint64), np.full(1, (1 << 64) - 1, np.uint64), np.array([root], np.uint64)
    )
    if not root & 2:
        return _stored(level)
    types = kernel.btf.enumerators("maple_type")
    shapes = {
        types["maple_leaf_64"]: _shape(kernel, "maple_range_64"),
        types["maple_range_64"]: _shape(kernel, "maple_range_64"),
        types["maple_arange_64"]: _shape(kernel, "maple_arange_64"),
    }
    for _ in range(_DEPTH):
        kinds = level.entry >> _TYPE_SHIFT & _TYPE_MASK
        level = _children(kernel, level, kinds, shapes)
        # All leaves have the same depth (it is a B-tree), so one tells for its level.
        if kinds[0] == types["maple_leaf_64"]:
            return _stored(level)
    raise Torn


def _shape(kernel: Kernel, node: str) -> _Shape:
    slots, pivots = kernel.btf.member(node, "slot"), kernel.btf.member(node, "pivot")
    return _Shape(
        pivots=slice(pivots.offset // 8, pivots.offset // 8 + pivots.count),
        slots=slice(slots.offset // 8, slots.offset // 8 + slots.count),
    )


def _children(kernel: Kernel, level: Entries, kinds: U64, shapes: dict[int, _Shape]) -> Entries:
    addresses = level.entry & ~np.uint64(_NODE - 1)
    rows, errno = read_structs(kernel.memory, addresses, _NODE)
    words = rows.view(np.uint64)
    # A node that was replaced points at itself (ma_dead_node).
    dead = words[:, 0] & ~np.uint64(_NODE - 1) == addresses
    if errno.any() or dead.any():
        raise Torn
    alike = shapes.get(int(kinds[0]))
    if alike is not None and (kinds == kinds[0]).all():
        return Entries(*_ranges(words, alike, level.first, level.last))
    if not set(kinds.tolist()) <= shapes.keys():
        raise Torn
    parts = []
    for kind, shape in shapes.items():
        here = kinds == kind
        if here.any():
            parts.append(_ranges(words[here], shape, level.first[here], level.last[here]))
    found = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    order = np.argsort(found[0])
    return Entries(*(column[order] for column in found))


def _ranges(words: U64, shape: _Shape, first: U64, last: U64) -> tuple[U64, U64, U64]:
    slots = words[:, shape.slots]
    # The pivot of the last slot in use is the node's own end, or 0 for short; behind it the slots
    # are leftovers (mas_logical_pivot, ma_data_end).
    ends = np.concatenate((words[:, shape.pivots], last[:, None]), axis=1)
    ends[:, 1:][ends[:, 1:] == 0] = np.iinfo(np.uint64).max
    ends = np.minimum(ends, last[:, None])
    starts = np.concatenate((first[:, None], ends[:, :-1] + np.uint64(1)), axis=1)
    used = np.arange(slots.shape[1]) <= np.argmax(ends == last[:, None], axis=1)[:, None]
    return starts[used], ends[used], slots[used]


def _stored(level: Entries) -> Entries:
    # A pointer: neither empty nor one of the tree's reserved values, which carry the tag 2.
    real = (level.entry != 0) & (level.entry & np.uint64(3) == 0)
    return Entries(level.first[real], level.last[real], level.entry[real])
