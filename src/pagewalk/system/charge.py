"""What was counted of a cgroup's charge, and what of it is not used yet. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pagewalk.model.frames import Kind
from pagewalk.system.census import Census
from pagewalk.system.unused import Unused

# include/linux/memcontrol.h, MEMCG_CHARGE_BATCH: a CPU charges so many pages in advance.
BATCH = 64


class Charge(NamedTuple):
    """What was counted: frames, bytes of kernel objects, and what a page and the machine are.

    ``objects`` are split into those of caches that can shrink and the others. ``generations``:
    whether LRU lists were sorted by generation, which hides what is active. ``groups`` is how many
    there are, itself and those below it; a CPU charges in advance for at most ``stocks`` groups at
    a time. ``areas`` are bytes of "kernel_stack" and "vmalloc", as far as they are told apart.
    ``kernel``: whether this kernel charges its own memory to groups at all (proc.cgroups.KERNEL).
    ``unused`` is what was found of the charge that is not used yet. ``pairs``: whether page-table
    roots may be two pages (proc.kernel.has_root_pairs).
    """

    census: Census
    reclaimable: int
    unreclaimable: int
    page: int
    cpus: int
    generations: bool = False
    groups: int = 1
    stocks: int = 1
    areas: Mapping[str, int] = MappingProxyType({})
    kernel: bool = True
    unused: Unused | None = None
    pairs: bool = False

    @property
    def in_advance(self) -> int:
        """Return the most that may be charged in advance, bytes."""
        return BATCH * self.cpus * min(self.groups, self.stocks) * self.page

    @property
    def in_stock(self) -> int:
        """Return the most that may be charged for kernel objects and not used yet, bytes.

        What obj_cgroups have left, if that was read; else less than a page of each for each CPU
        that it was taken from (drain_obj_stock, mm/memcontrol.c). A CPU's stock was too small for
        an object, of two pages at most (KMALLOC_MAX_CACHE_SIZE), and got less than a page more.
        """
        if not self.kernel:
            return 0
        held = 3 * self.cpus * self.page
        if self.unused is not None and self.unused.listed:
            return held + self.unused.left
        known = 0 if self.unused is None else self.unused.objcgs
        return held + max(self.groups, known) * self.cpus * self.page

    @property
    def second_pages(self) -> int:
        """Return the most that may be charged in pages that do not say who is charged, bytes.

        Two pages that are allocated together and are no folio are both charged, and only the first
        says to whom (__memcg_kmem_charge_page): the root of a process's page tables, which is among
        the kernel's pages that are not told apart.
        """
        found = self.census.of(Kind.KERNEL)
        return self.page * self.census.count(found) if self.pairs else 0

    def exactly(self, name: str) -> int | None:
        """Return the bytes that were found to be charged and not used, None if it is bounded.

        ``name`` is a cause.
        """
        if self.unused is None:
            return None
        return {"object_stock": self.unused.for_objects,
                "charged_in_advance": self.unused.in_advance}[name]

    @property
    def objects(self) -> int:
        """Return the bytes of kernel objects."""
        return self.reclaimable + self.unreclaimable
