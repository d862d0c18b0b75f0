"""VMAs whose pages no other process maps, found by the reverse map without looking at any page.

Every mapping of an anonymous page is found through its anon_vma. One that is its own root was
created in this address space (__anon_vma_prepare() in mm/rmap.c). A fork gives the child an
anon_vma that counts as a child of it (anon_vma_fork()) before any page is shared, and it counts
until the child has unmapped the last one. So the pages of a root anon_vma with no child but itself
are mapped here only. Only KSM maps an anonymous page any other way, and only where madvise allows
it.
"""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.readers.memory import read_structs
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.vmas import RawVmas
from pagewalk.model.bits import VM_HUGETLB, VM_IO, VM_MERGEABLE, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED
from pagewalk.model.columns import Bool

# what is not private anonymous memory, and what KSM may merge
_NEVER = np.uint64(VM_SHARED | VM_PFNMAP | VM_IO | VM_HUGETLB | VM_MIXEDMAP | VM_MERGEABLE)


def unshared(kernel: Kernel, vmas: RawVmas) -> Bool:
    """Return a mask of VMAs whose ordinary pages are anonymous and mapped once, by this process.

    It holds as long as no VMA changes: a fork changes the VMAs' mm_lock_seq. All False if the
    kernel does not count an anon_vma's children (before 6.0).
    """
    mask: Bool = (vmas.ops | vmas.file == 0) & (vmas.anon_vma != 0) & (vmas.flags & _NEVER == 0)
    if not mask.any() or not kernel.btf.has("anon_vma", "num_children"):
        return np.zeros(len(mask), bool)
    address = vmas.anon_vma[mask]
    rows, errno = read_structs(kernel.memory, address, kernel.btf.size("anon_vma"))
    root, parent, children = (
        kernel.column(rows, "anon_vma", name) for name in ("root", "parent", "num_children")
    )
    mask[mask] = (errno == 0) & (root == address) & (parent == address) & (children == 1)
    return mask
