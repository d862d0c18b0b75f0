"""What a process's memory is: its VMAs in groups that add up to the totals. No I/O.

Each group has a rule, by what the kernel says of a VMA; docs/counting.md tells them to users. What
no rule tells apart is called anonymous.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pagewalk.account.table import Table
from pagewalk.model.columns import EXEC, I64, READ, SHARED, U64, WRITE, Backing, VMAs, perms_text
from pagewalk.model.malloc import HEAP_MAX
from pagewalk.model.ranges import holder, inside

# Where Go puts its heap on amd64 and arm64, plus a multiple of 1 TiB (mallocinit, malloc.go of its
# runtime); from 1.26 on at random (RandomizedHeapBase64).
GO_HEAPS, GO_STEP, GO_RANDOM = (0xC0 << 32, 0x40 << 32), np.uint64(1 << 40), 26
NAMED = re.compile(r"\[anon(?:_shmem)?:(.*)\]", re.DOTALL)  # anon_vma_name, mm/madvise.c


class Kind(NamedTuple):
    """A kind of memory: its key everywhere, what people call it, and what tells it."""

    key: str
    title: str
    evidence: str


KINDS = (
    Kind("heap", "heap", "the kernel marks what brk(2) gave as [heap]"),
    Kind("arena", "malloc arenas", "a readable and writable VMA from a multiple of 64 MiB on, and"
         " one without access behind it to the next multiple: glibc's new_heap() reserves so"),
    Kind("go", "Go heap", "Go built the program, and up to 1.25 its runtime puts its heap, with the"
         " stacks of goroutines, at 0xc000000000 or a multiple of 1 TiB further up; with what is"
         " reserved right behind it"),
    Kind("stack", "main stack", "the kernel marks it as [stack]"),
    Kind("thread_stack", "thread stacks", "the stack pointer of a waiting thread is in it; with the"
         " VMA without access right below it, its guard"),
    Kind("named", "anonymous, named", "named by the process (PR_SET_VMA_ANON_NAME)"),
    Kind("code", "generated code", "anonymous and executable"),
    Kind("anonymous", "other anonymous", "private anonymous memory without any of these signs"),
    Kind("reserved", "no access", "anonymous memory that may neither be read nor written nor"
         " executed"),
    Kind("file", "files", "maps a file"),
    Kind("shmem", "shared memory", "maps a file of tmpfs, memfd, SysV or shared anonymous memory"),
    Kind("hugetlb", "hugetlb", "maps a file of hugetlbfs"),
    Kind("device", "devices", "maps a device: its driver chooses the pages"),
    Kind("kernel", "kernel's own", "[vdso], [vvar] and their like"),
)
BY_KEY = {kind.key: kind for kind in KINDS}
CODES = {kind.key: code for code, kind in enumerate(KINDS)}

# What needs no second look, by backing.
BY_BACKING = {
    Backing.FILE: "file", Backing.SHMEM: "shmem", Backing.HUGETLB: "hugetlb",
    Backing.DRIVER: "device", Backing.KERNEL: "kernel", Backing.HIDDEN: "kernel",
    Backing.GATE: "kernel", Backing.ANON: "anonymous",
}
BACKED = np.array([CODES[BY_BACKING[backing]] for backing in Backing], np.int64)
RIGHTS = READ | WRITE | EXEC
NO_ROWS = np.zeros(0, np.int64)


class Group(NamedTuple):
    """VMAs of one kind, or with one key: ``vmas`` how many, ``rows`` which, i64.

    ``amounts``: bytes by column of the Table, None where that is withheld.
    """

    key: str
    vmas: int
    rows: I64
    amounts: dict[str, int | None]


def value(group: Group, column: str) -> int | str | None:
    """Return what a group has in ``column``: an amount, ``vmas`` or ``group``, its key."""
    return {"group": group.key, "vmas": group.vmas, **group.amounts}[column]


def kinds_of(vmas: VMAs, stack_pointers: U64, go: str | None = None) -> I64:
    """Return the position in KINDS of each VMA's kind, i64.

    ``stack_pointers`` u64 are those of the process's threads, as far as they are known; ``go`` is
    the version of Go that built the program, None for another program. If it is not known where
    Go's heap is, stacks and arenas are not told from it.
    """
    code = BACKED[vmas.backing]
    anon = vmas.backing == Backing.ANON.value
    code[anon & (vmas.perms & EXEC != 0)] = CODES["code"]
    code[anon & (vmas.perms & RIGHTS == 0)] = CODES["reserved"]
    heap = NO_ROWS if go is None or random_heap(go) else go_rows(vmas)
    if go is None or len(heap):
        code[arena_rows(vmas)] = CODES["arena"]
        code[stack_rows(vmas, stack_pointers)] = CODES["thread_stack"]
    code[heap] = CODES["go"]
    for row, name in enumerate(vmas.name):
        if name and anon[row]:
            code[row] = CODES[called(name)]
    stacks = np.flatnonzero(code == CODES["thread_stack"])
    below = stacks[stacks > 0] - 1
    guard = (code[below] == CODES["reserved"]) & (vmas.end[below] == vmas.start[below + 1])
    code[below[guard]] = CODES["thread_stack"]
    return code


def stack_rows(vmas: VMAs, pointers: U64) -> I64:
    rows = holder(pointers[inside(pointers, vmas.ranges)], vmas.ranges)
    anon: I64 = rows[vmas.backing[rows] == Backing.ANON.value]
    return anon


def may_be_go(vmas: VMAs, stack_pointers: U64) -> bool:
    """Return whether some VMA would be of another kind if Go built the program."""
    rows = np.concatenate([stack_rows(vmas, stack_pointers), arena_rows(vmas), go_rows(vmas)])
    return any(not vmas.name[row] for row in rows.tolist())


def random_heap(go: str) -> bool:
    # Go before 1.18 does not say which it is: an empty text.
    release = re.match(r"go1\.(\d{1,3})\b", go)
    return bool(go) and (not release or int(release[1]) >= GO_RANDOM)


def go_rows(vmas: VMAs) -> I64:
    # From an address of Go's heap on, whatever lies right behind it and may be its own.
    plain = (vmas.backing == Backing.ANON.value) & (vmas.perms & (SHARED | EXEC) == 0)
    plain &= np.array([not name for name in vmas.name], bool)
    first = plain & np.isin(vmas.start % GO_STEP, GO_HEAPS) & (vmas.start < np.uint64(1 << 47))
    if not first.any():
        return NO_ROWS
    breaks = np.ones(len(vmas), bool)
    breaks[1:] = (vmas.end[:-1] != vmas.start[1:]) | ~plain[1:] | ~plain[:-1] | first[1:]
    run = np.cumsum(breaks)
    return np.flatnonzero(np.isin(run, run[first]))


def called(name: str) -> str:
    # The kind of anonymous memory that the kernel prints with a name.
    if name in ("[heap]", "[stack]"):
        return name[1:-1]
    if NAMED.fullmatch(name):
        return "named"
    return "thread_stack" if name.startswith("[stack:") else "anonymous"


def arena_rows(vmas: VMAs) -> I64:
    # Pairs of VMAs: what heaps use from a multiple of HEAP_MAX on, and the rest of the last one.
    plain = (vmas.backing == Backing.ANON.value) & (vmas.perms & SHARED == 0)
    plain &= np.array([not name for name in vmas.name], bool)
    rights = vmas.perms & RIGHTS
    most = np.uint64(HEAP_MAX)
    used = plain & (rights == READ | WRITE) & (vmas.start % most == 0)
    rest = plain & (rights == 0) & (vmas.end % most == 0) & (vmas.size < most)
    pair = used[:-1] & rest[1:] & (vmas.end[:-1] == vmas.start[1:])
    rows = np.flatnonzero(pair)
    return np.concatenate([rows, rows + 1])


def by_kind(table: Table, stack_pointers: U64, go: str | None = None) -> list[Group]:
    """Return the groups of ``table`` by kind, in the order of KINDS, without empty ones.

    See kinds_of.
    """
    return grouped(table, kinds_of(table.vmas, stack_pointers, go), [kind.key for kind in KINDS])


def by_name(table: Table) -> list[Group]:
    """Return the groups of ``table`` by what is mapped, the largest in RAM first."""
    return largest_first(grouped(table, *numbered([name or "[anon]" for name in table.vmas.name])))


def by_perms(table: Table) -> list[Group]:
    """Return the groups of ``table`` by access rights, the largest in RAM first."""
    return largest_first(grouped(table, *numbered([*map(perms_text, table.vmas.perms.tolist())])))


def numbered(keys: list[str]) -> tuple[I64, list[str]]:
    # The position of each key among the distinct ones, and those.
    numbers: dict[str, int] = {}
    which = [numbers.setdefault(key, len(numbers)) for key in keys]
    return np.array(which, np.int64), list(numbers)


def grouped(table: Table, which: I64, keys: list[str]) -> list[Group]:
    """Return a group for each of ``keys`` that ``which`` (i64, its position) says of a VMA."""
    order = np.argsort(which, kind="stable")
    edges = np.searchsorted(which[order], np.arange(len(keys) + 1))
    some = np.flatnonzero(edges[1:] > edges[:-1])
    sums = {name: None if column is None else np.add.reduceat(column[order], edges[some]).tolist()
            for name, column in table.columns.items()} if len(some) else {}
    return [
        Group(keys[row], int(edges[row + 1] - edges[row]), order[edges[row] : edges[row + 1]],
              {name: None if column is None else column[at] for name, column in sums.items()})
        for at, row in enumerate(some.tolist())
    ]


def largest_first(groups: list[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: -(group.amounts["present"] or 0))


def unlocked_files(table: Table) -> int | None:
    """Return the bytes of files in RAM that the process has not locked, None if not known."""
    cached, locked = table.columns["file"], table.outcome.locked
    if cached is None or locked is None:
        return None
    return int(cached[(table.vmas.backing == Backing.FILE.value) & ~locked].sum())


def nothing_behind(table: Table) -> int | None:
    """Return the bytes of anonymous memory neither present nor in swap, None if not known.

    What is not present of a file is still behind its VMA.
    """
    columns = table.columns
    size, here, gone = columns["size"], columns["present"], columns["swap_private"]
    if size is None or here is None or gone is None:
        return None
    return int((size - here - gone)[table.vmas.backing == Backing.ANON.value].sum())


BY: dict[str, Callable[[Table, U64, str | None], list[Group]]] = {
    "kind": by_kind,
    "file": lambda table, *_: by_name(table),
    "perms": lambda table, *_: by_perms(table),
}
