"""The targets by name: what each provokes, how it is started, what the machine must offer."""

from dataclasses import dataclass

# The keys of a region's facts that together account for each of its base pages, once.
# "empty" is a page with no entry, whether or not a page table exists above it.
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
    """Describe one target.

    name: its key in TARGETS. provokes: one sentence. args: what follows the program's own name;
    start() may replace all but the first. needs: names of SETUPS in tests/machine.py. execs:
    it becomes another program, which says nothing when it is ready. says_ready: an exec'ed
    program that prints the ready line itself.
    """

    name: str
    provokes: str
    args: tuple[str, ...]
    needs: tuple[str, ...] = ()
    execs: bool = False


def _zoo(name: str, provokes: str, *needs: str) -> Target:
    return Target(name, provokes, (name,), needs)


_ALL = (
    _zoo("plain", "private anonymous memory, a part of it written and a part never touched"),
    _zoo("zero_reads", "anonymous pages that were only read: the shared zero page"),
    _zoo("fork_cow", "three children that copied 8, 16 and 24 of 48 pages: mapcounts 1 to 4"),
    _zoo("fork_three", "seven pages mapped by three processes: PSS with a fraction"),
    _zoo("shared_fork", "shared anonymous memory that parent and child touched differently"),
    _zoo("locked", "mlock of a VMA and mlock2(MLOCK_ONFAULT) of the middle of another"),
    _zoo("prot_none", "PROT_NONE on pages that were written before"),
    _zoo("lazyfree", "MADV_FREE on written pages: still mapped until reclaimed"),
    _zoo("reservation", "16 TiB reserved, 1000 scattered pages written (argument: TiB)"),
    _zoo("runs", "runs of one page: every other page written (argument: runs)"),
    _zoo("dense", "every page of a region written (argument: MiB)"),
    _zoo("file_private", "a private file mapping: read, written and untouched thirds"),
    _zoo("file_shared", "a shared file mapping: read, written and untouched thirds"),
    _zoo("memfd", "a memfd mapped shared, private and written, and read-only"),
    _zoo("tmpfs", "an unlinked tmpfs file mapped shared, private and written, and read-only"),
    _zoo("names", "file names with spaces, a newline, a backslash and ' (deleted)'"),
)

TARGETS = {target.name: target for target in _ALL}
