"""Facts about the kernel being looked at that decide how its memory is counted. No I/O.

The facts travel with the walk: a rule asks ``walk.facts``, never the machine that pagewalk runs on,
which may be another one. docs/counting.md lists which rule depends on which fact.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pagewalk.model.soft import SwapTypes


class Facts(NamedTuple):
    """One kernel, and the machine that it runs on.

    ``architecture`` is uname's name for it (x86_64), ``release`` (major, minor), ``page_size`` the
    bytes of a base page, ``cpus`` how many are online. Facts that take time to find out are read
    when needed: ``read_config`` and ``read_protection_keys`` return what ``config`` and
    ``protection_keys`` do.
    """

    architecture: str
    release: tuple[int, int]
    page_size: int
    cpus: int
    read_config: Callable[[], frozenset[str] | None]
    read_protection_keys: Callable[[], bool]

    @property
    def config(self) -> frozenset[str] | None:
        """Return the configuration symbols that are built in, None if that is not known."""
        return self.read_config()

    @property
    def protection_keys(self) -> bool:
        """Return whether the CPU has protection keys and the kernel uses them."""
        return self.read_protection_keys()

    @property
    def swap_types(self) -> "SwapTypes":
        """Return the meaning of the type numbers of software entries."""
        from pagewalk.model.soft import swap_types  # it needs numpy

        return swap_types(self.release, self.config)

    @property
    def pmd_order(self) -> int:
        """Return how many base pages a PMD leaf maps, as a power of two.

        As many as a table has entries, and that is one page of 8-byte entries.
        """
        return (self.page_size // 8).bit_length() - 1

    @property
    def huge_size(self) -> int:
        """Return the bytes that a PMD leaf maps."""
        return self.page_size << self.pmd_order

    @property
    def pud_size(self) -> int:
        """Return the bytes that a PUD leaf maps, as many PMD leaves as a table has entries."""
        return self.huge_size << self.pmd_order

    @property
    def counters_by_thread(self) -> bool:
        """Return whether each thread keeps some of its faults out of the RSS counters; since 6.2
        each CPU does (mm: convert mm's rss stats into percpu_counter)."""
        return self.release < (6, 2)

    def counter_lag(self, threads: int) -> int:
        """Return how far an approximate RSS counter of a process may lag, in bytes."""
        if self.counters_by_thread:
            # mm/memory.c up to 6.1: each thread batches up to 64 faults (two more can slip past the
            # check), and each fault may map up to 16 file pages around it.
            return threads * 66 * 16 * self.page_size
        # include/linux/percpu_counter.h: an approximate read may miss batch - 1 pages on each CPU.
        return self.cpus * (max(32, 2 * self.cpus) - 1) * self.page_size

    @property
    def counters_summed(self) -> bool:
        """Return whether status and statm add the RSS counters of all CPUs up exactly."""
        return self.release >= (6, 18)

    @property
    def counts_huge_device(self) -> bool:
        """Return whether smaps takes the first page of a huge entry of device memory for a normal
        page, and counts that one (smaps_pmd_entry)."""
        return self.release < (6, 6)

    @property
    def entries_shared(self) -> bool:
        """Return whether smaps counts migration and hwpoison entries as shared, whatever their
        page's mapcount (fs/proc/task_mmu: account non-present entries as "maybe shared")."""
        return self.release >= (6, 11)

    @property
    def pmd_sharing_told(self) -> bool:
        """Return whether bit 56 of a hugetlb page in pagemap is clear where another process shares
        its page table; before, the bit reflected only the mapcount (pagemap_hugetlb_range)."""
        return self.release >= (6, 12)

    @property
    def average_mapcounts(self) -> bool:
        """Return whether pages of large folios have no mapcount of their own."""
        return "CONFIG_NO_PAGE_MAPCOUNT" in (self.config or ())

    @property
    def file_huge_pages(self) -> bool | None:
        """Return whether files of any file system may have huge pages, None if that is unknown."""
        return None if self.config is None else "CONFIG_READ_ONLY_THP_FOR_FS" in self.config
