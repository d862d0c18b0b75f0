"""Read the maple tree that holds a process's VMAs since 6.1 (lib/maple_tree.c), level by level.

A node has 256 bytes: a parent pointer, pivots (the last index of each slot) and slots. A pointer
to a node has the node's type in its low byte.
"""

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import read_structs
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import I64, U64, Bool

_NODE = 256
_TYPE_SHIFT, _TYPE_MASK = np.uint64(3), np.uint64(0xF)
# More levels than any real tree has: a guard against a tree that changes while it is read.
_DEPTH = 16


class Slots(NamedTuple):
    """The tree's ranges: first and last index, both inclusive, and the pointer stored there."""

    first: U64
    last: U64
    entry: U64


class _Shape(NamedTuple):
    # Where a node type keeps its pivots and slots, in words.
    pivots: slice
    slots: slice


_EMPTY = np.zeros(0, np.uint64)
_NONE = Slots(_EMPTY, _EMPTY, _EMPTY)


class Torn(Exception):
    """Raised internally when a tree changed while it was read: read it again."""


def read_maple_tree(kernel: Kernel, root: int, wanted: U64 | None = None) -> tuple[Slots, U64]:
    """Return the ranges of the maple tree whose ``ma_root`` is ``root``, and where it was torn.

    ``wanted`` (u64[k, 2], addresses, sorted, half open) limits the reading to ranges that overlap
    one of these. The second value, of the same form, is where nothing could be read because the
    nodes had been replaced. Raises Torn when that is everywhere.
    """
    torn = [np.zeros((0, 2), np.uint64)]
    level = Slots(
        np.zeros(1, np.uint64), np.full(1, (1 << 64) - 1, np.uint64), np.array([root], np.uint64)
    )
    if not root & 2:
        return _stored(level), torn[0]
    types, shapes = kernel.btf.enumerators("maple_type"), _shapes(kernel)
    for _ in range(_DEPTH):
        kinds = level.entry >> _TYPE_SHIFT & _TYPE_MASK
        # All leaves are at the same depth (it is a B-tree), so one node decides for its level.
        last = len(kinds) == 0 or kinds[0] == types["maple_leaf_64"]
        level, lost = _children(kernel, level, kinds, shapes)
        torn.append(lost)
        if wanted is not None:
            level = _meeting(level, wanted)
        if last:
            lost = np.concatenate(torn)
            return _stored(level), lost[np.argsort(lost[:, 0])]
    raise Torn


def read_maple_trees(kernel: Kernel, roots: U64) -> tuple[Slots, I64, Bool]:
    """Return the ranges of several maple trees, level by level of all of them together.

    ``roots`` (u64[n]) are their ``ma_root``. The second value (i64) is which tree each range is of,
    ascending; the third, bool[n], which trees were read whole. The ranges of others mean nothing.
    """
    whole = np.asarray(roots & np.uint64(2) != 0)  # none has a single entry and no node
    tree = np.flatnonzero(whole)
    every = np.full(len(tree), (1 << 64) - 1, np.uint64)
    level, parts = Slots(np.zeros(len(tree), np.uint64), every, roots[tree]), [(_NONE, tree[:0])]
    leaf, shapes = kernel.btf.enumerators("maple_type")["maple_leaf_64"], _shapes(kernel)
    for _ in range(_DEPTH):
        kinds = level.entry >> _TYPE_SHIFT & _TYPE_MASK
        words, dead = _nodes(kernel, level)
        below = [(_NONE, tree[:0])]
        for kind, shape in shapes.items():
            here = np.flatnonzero(~dead & (kinds == kind))
            if len(here):
                found, dead[here], node = _ranges(words[here], shape, _at(level, here))
                (parts if kind == leaf else below).append((found, tree[here[node]]))
        whole[tree[dead | ~np.isin(kinds, list(shapes))]] = False
        level, tree = _joined(below)
        if not len(tree):
            break
    whole[tree] = False
    level, tree = _joined(parts)
    real = _real(level.entry)
    level, tree = _at(level, real), tree[real]
    order = np.lexsort((level.first, tree))
    return _at(level, order), tree[order], whole


def _joined(parts: list[tuple[Slots, I64]]) -> tuple[Slots, I64]:
    columns = zip(*(slots for slots, _ in parts), strict=True)
    return Slots(*map(np.concatenate, columns)), np.concatenate([tree for _, tree in parts])


def _meeting(level: Slots, wanted: U64) -> Slots:
    # The slots that overlap one of these ranges.
    at = np.minimum(np.searchsorted(wanted[:, 1], level.first, side="right"), len(wanted) - 1)
    here = (wanted[at, 0] <= level.last) & (level.first < wanted[at, 1])
    return _at(level, here)


def _shapes(kernel: Kernel) -> dict[int, _Shape]:
    types = kernel.btf.enumerators("maple_type")
    return {
        types["maple_leaf_64"]: _shape(kernel, "maple_range_64"),
        types["maple_range_64"]: _shape(kernel, "maple_range_64"),
        types["maple_arange_64"]: _shape(kernel, "maple_arange_64"),
    }


def _shape(kernel: Kernel, node: str) -> _Shape:
    slots, pivots = kernel.btf.member(node, "slot"), kernel.btf.member(node, "pivot")
    return _Shape(
        pivots=slice(pivots.offset // 8, pivots.offset // 8 + pivots.elements),
        slots=slice(slots.offset // 8, slots.offset // 8 + slots.elements),
    )


def _children(
    kernel: Kernel, level: Slots, kinds: U64, shapes: dict[int, _Shape]
) -> tuple[Slots, U64]:
    words, dead = _nodes(kernel, level)
    alike = shapes.get(int(kinds[0])) if len(kinds) else None
    if alike is not None and not dead.any() and (kinds == kinds[0]).all():
        found, dead, _ = _ranges(words, alike, level)
    else:
        parts = [_NONE]
        for kind, shape in shapes.items():
            here = np.flatnonzero(~dead & (kinds == kind))
            part, dead[here], _ = _ranges(words[here], shape, _at(level, here))
            parts.append(part)
        dead |= ~np.isin(kinds, list(shapes))
        found = Slots(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        found = _at(found, np.argsort(found.first))
    lost = np.stack([level.first[dead], _after(level.last[dead])], axis=1)
    return found, lost


def _nodes(kernel: Kernel, level: Slots) -> tuple[U64, Bool]:
    # The words of the nodes, and a mask of those that are nodes no longer.
    addresses = level.entry & ~np.uint64(_NODE - 1)
    rows, errno = read_structs(kernel.memory, addresses, _NODE)
    words = rows.view(np.uint64)
    # A node that was replaced is its own parent (ma_dead_node).
    return words, (errno != 0) | (words[:, 0] & ~np.uint64(_NODE - 1) == addresses)


def _at(level: Slots, rows: I64 | Bool) -> Slots:
    return Slots(*(column[rows] for column in level))


def _after(last: U64) -> U64:
    # The half-open end of a range; nothing is stored at the very last address.
    return np.where(last == np.iinfo(np.uint64).max, last, last + np.uint64(1))


def _ranges(words: U64, shape: _Shape, level: Slots) -> tuple[Slots, Bool, I64]:
    # The used slots of some nodes, a mask of the nodes that make no sense and so have none, and
    # which node each slot is of.
    first, last, slots = level.first, level.last, words[:, shape.slots]
    # The pivot of the last used slot is the end of the node's range, or 0 in its place; the slots
    # after it hold stale values (mas_logical_pivot, ma_data_end).
    ends = np.concatenate((words[:, shape.pivots], last[:, None]), axis=1)
    ends[:, 1:][ends[:, 1:] == 0] = np.iinfo(np.uint64).max
    ends = np.minimum(ends, last[:, None])
    starts = np.concatenate((first[:, None], ends[:, :-1] + np.uint64(1)), axis=1)
    used = np.arange(slots.shape[1]) <= np.argmax(ends == last[:, None], axis=1)[:, None]
    mad: Bool = (used & (starts > ends)).any(axis=1)
    if mad.any():
        used &= ~mad[:, None]
    return Slots(starts[used], ends[used], slots[used]), mad, np.nonzero(used)[0]


def _stored(level: Slots) -> Slots:
    return _at(level, _real(level.entry))


def _real(entry: U64) -> Bool:
    # A pointer: neither empty nor one of the tree's reserved values, which have the tag 2.
    real: Bool = (entry != 0) & (entry & np.uint64(3) == 0)
    return real
