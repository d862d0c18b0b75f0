"""The targets by name: what each provokes, how it is started, what it needs of the machine."""

import sys
from dataclasses import dataclass
from pathlib import Path

# The keys in a region's facts that together account for each of its base pages once.
# "empty" is a page without an entry, whether or not there is a page table for it.
STATES = (
    "anon",
    "file",
    "shmem",
    "zero",
    "special",
    "hugetlb",
    "swapped",
    "guard",
    "marker",
    "poisoned",
    "empty",
)


@dataclass(frozen=True)
class Target:
    """One target.

    name: its key in TARGETS. provokes: one sentence. args: what follows the program's own name;
    start() may replace all but the first. needs: names in SETUPS of tests/machine.py. execs:
    it becomes another program, which prints nothing when it is ready.
    """

    name: str
    provokes: str
    args: tuple[str, ...]
    needs: tuple[str, ...] = ()
    execs: bool = False


PARK = str(Path(__file__).with_name("Park.java"))
# What Park.java does, in Python.
PARK_PY = """print('{"ready": 1}', flush=True); input()"""


def _zoo(name: str, provokes: str, *needs: str) -> Target:
    return Target(name, provokes, (name,), needs)


_ALL = (
    _zoo("plain", "private anonymous memory, part of it written and part never touched"),
    _zoo("zero_reads", "anonymous pages that were only read: the shared zero page"),
    _zoo("fork_cow", "three children that copied 8, 16 and 24 of 48 pages: mapcounts 1 to 4"),
    _zoo("fork_three", "seven pages mapped by three processes: PSS with a fraction"),
    _zoo("shared_fork", "shared anonymous memory that parent and child touched differently"),
    _zoo("locked", "mlock of one VMA and mlock2(MLOCK_ONFAULT) of the middle of another"),
    _zoo("locked_all", "mlockall: libc's pages too, which other processes map"),
    _zoo("locked_leak", "locked memory that is gone but still in VmLck (argument: pages)"),
    _zoo("prot_none", "PROT_NONE on pages that were written before"),
    _zoo("lazyfree", "MADV_FREE on written pages: still mapped until reclaimed"),
    _zoo("reservation", "16 TiB reserved, 1000 scattered pages written (argument: TiB)"),
    _zoo("runs", "runs of one page: every other page written (argument: runs)"),
    _zoo("vmas", "thousands of VMAs of one page (argument: VMAs)"),
    _zoo("dense", "every page of a region written (argument: MiB)"),
    _zoo("file_private", "a private file mapping: read, written and untouched thirds"),
    _zoo("file_shared", "a shared file mapping: read, written and untouched thirds"),
    _zoo("memfd", "a memfd mapped shared, private and written, and read-only"),
    _zoo("tmpfs", "an unlinked tmpfs file mapped shared, private and written, and read-only"),
    _zoo("names", "file names with spaces, a newline, a backslash and ' (deleted)'"),
    _zoo("thp", "one huge page, mapped whole, and an empty huge range", "thp"),
    _zoo("thp_part", "a huge page whose first half a child has unmapped", "thp"),
    _zoo("thp_fork", "a huge page that a child maps too", "thp"),
    _zoo("thp_split", "a huge page mapped by small entries in two VMAs", "thp"),
    _zoo("thp_holes", "a huge page of which a part was given back: nobody maps that", "thp"),
    _zoo("thp_moved", "a huge page moved to an address where no huge page fits", "thp"),
    _zoo("thp_half", "a huge page half of whose pages were never written (argument: how many)",
         "thp"),
    _zoo("huge_zero", "the huge zero page (argument: how many times)", "thp"),
    _zoo("shmem_thp", "a huge shmem page, mapped whole and by small entries", "shmem_thp"),
    _zoo("file_thp", "a huge page of the page cache, mapped whole", "thp"),
    _zoo("hugetlb_private", "two of three private hugetlb pages touched", "hugetlb"),
    _zoo("hugetlb_shared", "two of three shared hugetlb pages touched", "hugetlb"),
    _zoo("hugetlb_fork", "hugetlb pages of parent and child, one of them shared", "hugetlb"),
    _zoo("hugetlb_pmd", "a shared GiB of hugetlb: parent and child share a page table", "hugetlb"),
    _zoo("hugetlb_pud", "a hugetlb page of 1 GiB: a leaf at the PUD", "hugetlb_gib"),
    _zoo("guard", "MADV_GUARD_INSTALL over written and untouched anonymous pages"),
    _zoo("guard_file", "MADV_GUARD_INSTALL over read and untouched pages of a shared file mapping"),
    _zoo("uffd_wp", "userfaultfd-wp on pages and, by markers, on holes", "userfaultfd"),
    _zoo("uffd_poison", "UFFDIO_POISON: markers that raise SIGBUS", "userfaultfd"),
    _zoo("ksm", "60 equal pages merged, 20 distinct, 20 merged with the zero page", "ksm"),
    _zoo("swap_private", "private pages on swap, some read or written back", "zram"),
    _zoo("swap_forked", "swap slots shared by three processes, some read back by one", "zram"),
    _zoo("swap_shmem", "swapped shared memory, mapped shared, private and in part", "zram"),
    _zoo("swap_mixed", "a private mapping with swap entries of its own and swapped shmem", "zram"),
    _zoo("swap_huge", "huge shmem pages on swap, which smaps overcounts", "zram", "shmem_thp"),
    _zoo("swap_thp", "a huge anonymous page on swap", "zram", "thp"),
    _zoo("droppable", "MAP_DROPPABLE memory"),
    _zoo("sysv", "a System V shared memory segment"),
    _zoo("perf_ring", "a perf ring buffer: VM_PFNMAP, in no counter"),
    _zoo("packet_ring", "a packet socket's ring: VM_MIXEDMAP, counted as file"),
    _zoo("io_uring", "io_uring's entries: kernel pages counted as file"),
    _zoo("bpf_array", "a BPF array: kernel pages counted as file"),
    _zoo("secret", "memfd_secret: outside the direct map, locked, counted as file"),
    _zoo("batching", "page counts that the rss of stat does not include yet and statm does"),
    _zoo("threads", "a process of nine threads"),
    _zoo("deep", "three threads that once used 256 pages of their stacks and wait far above them"),
    _zoo("leader_dead", "the main thread has exited, two threads live"),
    _zoo("zombie", "a parent that does not reap its child"),
    _zoo("shared_mm", "two processes with one address space (CLONE_VM)"),
    _zoo("odd_name", "a process name with blanks, a parenthesis and a newline"),
    _zoo("undumpable", "as nobody, with PR_SET_DUMPABLE 0: /proc/PID belongs to root"),
    _zoo("nobody", "a process of user 65534 (argument: another uid)"),
    _zoo("churn", "a thread that maps, fills with 0xff and unmaps (argument: threads)"),
    _zoo("storm", "threads that map and unmap, and fork and exec, without pause"
         " (arguments: mapping threads, forking threads, VMAs that stay, shared pages on swap)"),
    _zoo("mapper", 'tell("stall") returns the worst mmap since the last call (argument: MiB)'),
    Target("sleep", "sleep(1)", ("run_quietly", "sleep", "3600"), execs=True),
    Target("top", "top(1) in batch mode", ("run_quietly", "top", "-b", "-d", "3600"), execs=True),
    Target("python", "a Python interpreter", ("run", sys.executable, "-c", PARK_PY)),
    Target("java", "a Java virtual machine", ("run", "java", "-Xmx64m", PARK), ("java",)),
)

TARGETS = {target.name: target for target in _ALL}
