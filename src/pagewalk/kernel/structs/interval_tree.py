"""The trees by which the kernel finds the VMAs that may map a page: of a file, and of an anon_vma.

Both are red-black trees by the first page of each VMA; a node also has the last page of all VMAs at
and below it (include/linux/interval_tree_generic.h). Nothing is locked, so what changes meanwhile
may be missed; whoever asks compares with the mapcount.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import PAGE
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.gather import gather, in_direct_map
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import I64, U64, Bool

_DEEPEST = 128  # levels of a red-black tree: twice the logarithm of what it can hold


class Tree(NamedTuple):
    """Which struct is a node, and where it keeps its ``links`` and the ``last`` page below it.

    ``vma`` is the member that points to the VMA, empty if the node is one.
    """

    struct: str
    links: str
    last: str
    vma: str


I_MMAP = Tree("vm_area_struct", "shared.rb", "shared.rb_subtree_last", "")
ANON_VMA = Tree("anon_vma_chain", "rb", "rb_subtree_last", "vma")


class Overlapping(NamedTuple):
    """Addresses of vm_area_structs (``vma`` u64), and of which tree each is (``row`` i64).

    If it is not ``complete``, there were more nodes than were to be looked at.
    """

    row: I64
    vma: U64
    complete: bool


def overlapping(
    kernel: Kernel, direct_map: DirectMap, tree: Tree, roots: U64, first: U64, last: U64, most: int
) -> Overlapping:
    """Return the VMAs that have a page from ``first`` to ``last``, both inclusive.

    ``roots`` (u64[n]) are the addresses of the top nodes of n trees, 0 for an empty one, and
    ``first`` and ``last`` (u64[n]) page numbers as in vm_pgoff. At most ``most`` nodes are looked
    at, of all trees together. Raises NotInBtf.
    """
    left, right = f"{tree.links}.rb_left", f"{tree.links}.rb_right"
    offset = np.uint64(kernel.btf.offset(tree.struct, tree.links))
    members = (left, right, tree.last, *([tree.vma] if tree.vma else []))
    row, node, looked = np.arange(len(roots)), roots, 0
    rows, vmas, complete = [row[:0]], [node[:0]], False
    for _ in range(_DEEPEST):
        there = in_direct_map(direct_map, node) & (node != 0)
        row, node = row[there], node[there]
        looked += len(node)
        complete = not len(node)
        if complete or looked > most:
            break
        below, good = gather(kernel, tree.struct, node - offset, members)
        vma = below[tree.vma] if tree.vma else node - offset
        vma = np.where(in_direct_map(direct_map, vma), vma, np.uint64(0))
        begin, end, told = _pages(kernel, vma)
        good &= below[tree.last] >= first[row]
        onward = good & (begin <= last[row])
        here = onward & told & (end >= first[row])
        rows.append(row[here])
        vmas.append(vma[here])
        row = np.concatenate([row[good], row[onward]])
        node = np.concatenate([below[left][good], below[right][onward]])
    return Overlapping(np.concatenate(rows), np.concatenate(vmas), complete)


def _pages(kernel: Kernel, vma: U64) -> tuple[U64, U64, Bool]:
    # The first and last page of each VMA (vma_start_pgoff, vma_last_pgoff), and if it was read.
    found, told = gather(kernel, "vm_area_struct", vma, ("vm_start", "vm_end", "vm_pgoff"))
    pages = (found["vm_end"] - found["vm_start"]) // np.uint64(PAGE)
    return found["vm_pgoff"], found["vm_pgoff"] + pages - np.uint64(1), told
