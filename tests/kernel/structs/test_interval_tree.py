"""Interval trees laid out by hand in memory of our own: which VMAs are found, and that it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.structs.interval_tree import ANON_VMA, I_MMAP, Overlapping, Tree, overlapping
from pagewalk.model.errors import SourceUnavailable
from tests.kernel.laid import Laid
from tests.live.bracket import look_again
from tests.memory import PAGE

pytestmark = pytest.mark.live

# first page, pages, and the left and right child of each node; the tree's root is node 0
NODES = ((40, 10, 1, 2), (10, 35, 3, 4), (60, 5, None, 5), (0, 12, None, None),
         (30, 1, None, None), (90, 10, None, None))  # fmt: skip
MANY = 1000


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    try:
        kernel = open_bpf()
    except SourceUnavailable as refused:
        pytest.skip(str(refused))
    with closing(kernel):
        yield open_running(kernel)


def last_below(node: int | None) -> int:
    if node is None:
        return 0
    first, pages, left, right = NODES[node]
    return max(first + pages - 1, last_below(left), last_below(right))


def lay(running: RunningKernel, tree: Tree) -> tuple[Laid, list[int], int]:
    """Lay NODES out, a page each for the node and its VMA; return the VMAs, and the root."""
    btf = running.kernel.btf
    laid = Laid(running.kernel, running.direct_map, 2 * len(NODES))
    holders, vmas = laid.addresses[::2].tolist(), laid.addresses[1::2].tolist()
    if not tree.vma:
        vmas = holders
    links = btf.offset(tree.struct, tree.links)
    bytes_of = laid.words.view(np.uint8)
    for node, (first, pages, left, right) in enumerate(NODES):
        def put(page: int, struct: str, path: str, value: int) -> None:
            at = btf.offset(struct, path)
            bytes_of[page, at : at + 8] = np.array([value], np.uint64).view(np.uint8)

        for side, child in (("rb_left", left), ("rb_right", right)):
            put(2 * node, tree.struct, f"{tree.links}.{side}",
                0 if child is None else holders[child] + links)
        put(2 * node, tree.struct, tree.last, last_below(node))
        if tree.vma:
            put(2 * node, tree.struct, tree.vma, vmas[node])
        page = 2 * node + bool(tree.vma)
        put(page, "vm_area_struct", "vm_start", 0x7000_0000_0000)
        put(page, "vm_area_struct", "vm_end", 0x7000_0000_0000 + pages * PAGE)
        put(page, "vm_area_struct", "vm_pgoff", first)
    return laid, vmas, holders[0] + links


def find(
    running: RunningKernel, tree: Tree, root: int, first: int, last: int, most: int = MANY
) -> Overlapping:
    one = [np.array([number], np.uint64) for number in (root, first, last)]
    return overlapping(running.kernel, running.direct_map, tree, *one, most)


@pytest.mark.parametrize("tree", [I_MMAP, ANON_VMA])
def test_the_vmas_that_have_a_page_are_found(running: RunningKernel, tree: Tree) -> None:
    def look() -> None:
        laid, vmas, root = lay(running, tree)
        for first, last in ((0, 200), (0, 0), (11, 11), (12, 12), (30, 30), (44, 44), (45, 45),
                            (65, 89), (99, 99), (100, 100), (49, 60)):
            found = find(running, tree, root, first, last)
            expected = {vma for vma, (begin, pages, _, _) in zip(vmas, NODES, strict=True)
                        if begin <= last and first < begin + pages}
            assert set(found.vma.tolist()) == expected and found.complete
            assert len(found.vma) == len(expected) and not found.row.any()
        del laid

    look_again(look)


def test_each_tree_of_several_has_its_own_range(running: RunningKernel) -> None:
    def look() -> None:
        laid, vmas, root = lay(running, I_MMAP)
        roots, first, last = (np.array(column, np.uint64) for column in (
            (root, 0, root), (0, 0, 95), (5, 200, 95)))
        found = overlapping(
            running.kernel, running.direct_map, I_MMAP, roots, first, last, MANY)
        assert sorted(zip(found.row.tolist(), found.vma.tolist(), strict=True)) == [
            (0, vmas[3]), (2, vmas[5])]
        del laid

    look_again(look)


def test_a_circle_ends_and_so_does_a_tree_that_is_too_large(running: RunningKernel) -> None:
    def look() -> None:
        laid, _, root = lay(running, I_MMAP)
        assert not find(running, I_MMAP, root, 0, 200, most=len(NODES) - 1).complete
        at = running.kernel.btf.offset("vm_area_struct", "shared.rb.rb_left")
        laid.words.view(np.uint8)[6, at : at + 8] = np.array([root], np.uint64).view(np.uint8)
        found = find(running, I_MMAP, root, 0, 200)
        assert not found.complete and len(found.vma) <= MANY

    look_again(look)


def test_what_cannot_be_a_node_is_not_read(running: RunningKernel) -> None:
    for root in (0, 0x1000, 0xFFFF_FFFF_FFFF_F000, 0x7FFF_FFFF_F000):
        found = find(running, I_MMAP, root, 0, 200)
        assert not len(found.vma) and found.complete
