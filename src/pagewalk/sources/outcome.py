"""What a walk found out besides its pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pagewalk.model.columns import I64, Bool, Withheld, partial
from pagewalk.proc.objects import Object
from pagewalk.proc.stall import Stall


class Who(NamedTuple):
    """Whose address space it is: ``name`` is comm, ``exe`` the program's path if known."""

    pid: int
    name: str
    exe: str | None


@dataclass(eq=False)
class Outcome:
    """What a walk found out besides its pages; complete once it has been consumed.

    ``shmem_swap`` i64 bytes in swap of the shmem object under each VMA, ``locked`` a mask of the
    VM_LOCKED VMAs, ``vm_swap`` and ``vm_rss`` bytes of status; ``None`` where withheld.
    ``objects`` are the memory objects that the process holds, each with whether it ends with the
    process (None if that is not known); ``all_objects``: none of them is missing.
    ``hwpoison`` are the rows of the VMAs, hugetlb ones excepted, with entries for pages lost to a
    memory error; ``counts_hwpoison``: this kernel's smaps counts these entries in Rss.
    ``page_tables`` are the bytes of PTE, PMD and PUD tables, as VmPTE counts them except for
    deposits; None if tables are not read, or not all of them.
    """

    stall: Stall
    withheld: list[Withheld] = field(default_factory=list)
    shmem_swap: I64 | None = None
    locked: Bool | None = None
    vm_swap: int | None = None
    vm_rss: int | None = None
    objects: list[tuple[Object, bool | None]] = field(default_factory=list)
    all_objects: bool = False
    hwpoison: set[int] = field(default_factory=set)
    counts_hwpoison: bool | None = None
    page_tables: int | None = None
    done: bool = False

    @property
    def partial(self) -> list[str]:
        """Return why the walk lacks what this source could have provided; empty if complete."""
        return partial(self.withheld)
