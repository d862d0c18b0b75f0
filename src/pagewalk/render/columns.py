"""The columns of every table, as people name them, and which rows of a table come first.

To add a column, add it to its table here and to each format that writes it: the contract test
(tests/render/test_columns.py) asks every format for every column.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pagewalk.account.table import COLUMNS, Column
from pagewalk.model.errors import BadRequest

Row = TypeVar("Row")
SHOWN = 20  # rows of most tables on a screen, without --limit


class Columns(NamedTuple):
    """The columns of a table: ``naming`` tell its rows apart and are always there."""

    naming: tuple[Column, ...]
    others: tuple[Column, ...]

    @property
    def known(self) -> dict[str, Column]:
        """Return every column by what it may be called: its key, and what is printed above it."""
        every = (*self.naming, *self.others)
        return {spelled(word): column for column in every for word in (column.title, column.name)}


class Choice(NamedTuple):
    """What is shown of a table: columns (None: those of the format), and which rows come first.

    ``columns`` are besides those that name a row, which are always shown.
    """

    columns: tuple[str, ...] | None = None
    sort: Column | None = None
    reversed: bool = False
    limit: int | None = None

    def rows(self, rows: Iterable[Row], value: Callable[[Row, str], Any] = getattr) -> list[Row]:
        """Return ``rows`` in the order asked for, those whose ``value`` is None last.

        The largest amount comes first, or the first word; a reversed order is the other way round.
        """
        kept = list(rows)
        if self.sort is not None:
            pairs = [(value(row, self.sort.name), row) for row in kept]
            known = [pair for pair in pairs if pair[0] is not None]
            known.sort(key=lambda pair: pair[0], reverse=self.reversed == self.sort.words)
            kept = [row for _, row in known] + [row for told, row in pairs if told is None]
        return kept[: self.limit]


WHOLE = Choice()


def words(*rows: tuple[str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(*row, words=True) for row in rows)


def vma_columns() -> Columns:
    from pagewalk.account.smaps import DETAILS

    naming = words(
        ("start", "ADDRESS", "first byte"), ("perms", "PERM", "access rights"),
        ("name", "NAME", "what it maps"),
    )
    others = words(
        ("end", "END", "first byte after it"), ("offset", "OFFSET", "its first byte in its file"),
        ("vm_flags", "VMFLAGS", "the two-letter codes of smaps"),
    )
    return Columns(naming, (*COLUMNS, *DETAILS, *others))


def huge_columns() -> Columns:
    from pagewalk.account.huge import COLUMNS as OF_FOLIOS

    naming, every = vma_columns()
    return Columns(naming, (*OF_FOLIOS, *(c for c in every if c.name in ("end", "offset"))))


def huge_of_each_columns() -> Columns:
    from pagewalk.account.huge import COLUMNS as OF_FOLIOS
    from pagewalk.system.huge import AMOUNTS

    naming, name = process_columns().naming, process_columns().others[1]
    return Columns(naming, (*(c for c in OF_FOLIOS if c.name in AMOUNTS), name))


def kind_columns() -> Columns:
    naming = words(("group", "WHAT", "the kind, the file or the access rights"))
    return Columns(naming, (Column("vmas", "VMAS", "how many VMAs"), *COLUMNS))


def group_columns() -> Columns:
    from pagewalk.account.smaps import DETAILS

    naming, others = kind_columns()
    return Columns(naming, (*others, *DETAILS))


def page_columns() -> Columns:
    physical, state, flags, swap = words(
        ("phys", "PHYSICAL", "where it is in RAM"), ("state", "STATE", "what the page is"),
        ("flags", "FLAGS", "of the entry and of the frame"),
        ("swap", "SWAP", "the swap device and the slot"),
    )
    return Columns(words(("addr", "ADDRESS", "first byte")), (
        physical, Column("size", "KIB", "length of the page, or of the range without pages"), state,
        Column("mapcount", "MAPS", "how often it is mapped"), flags, swap,
        Column("pfn", "PFN", "number of the page frame"),
    ))


def ledger_columns() -> Columns:
    naming = words(("against", "AGAINST", "the kernel's number, and which of ours it is"))
    return Columns(naming, (
        Column("ours", "OURS", "our number"), Column("theirs", "THEIRS", "the kernel's number"),
        Column("difference", "DIFFERENCE", "ours - theirs"),
    ))


def arena_columns() -> Columns:
    naming = words(("arena", "ARENA", "main, or the number of an arena for threads"))
    return Columns(naming, (
        Column("obtained", "FROM SYSTEM", "what it has from the system"),
        Column("in_use", "IN USE", "what the program uses"),
        Column("free", "FREE", "what it does not"),
        Column("trim", "TRIMMABLE", "what malloc_trim(0) would give back"),
        Column("thread_top", "TOP", "free at the end of a thread's arena"),
        Column("scattered", "SCATTERED", "the rest of what is free and in RAM"),
        Column("locked", "LOCKED", "free, but locked in RAM, so that trimming returns none of it"),
        Column("trim_exclusive", "TRIM ALONE", "what of trim only this process maps"),
        Column("threads", "THREADS", "how many use it"),
    ))


def difference_columns() -> Columns:
    what, first, second = words(
        ("what", "WHAT", "what differs"), ("first", "FIRST", "what the first source says"),
        ("second", "SECOND", "what the second source says"),
    )
    size = Column("size", "KIB", "length of the stretch")
    return Columns(words(("addr", "ADDRESS", "first byte")), (size, what, first, second))


def check_columns() -> Columns:
    ok, finding, remedy = words(
        ("ok", "OK", "whether it works"),
        ("finding", "FINDING", "what it provides, or what is lost"),
        ("remedy", "REMEDY", "how to get it"),
    )
    return Columns(words(("name", "NAME", "the facility")), (ok, finding, remedy))


def process_words() -> tuple[Column, ...]:
    return words(
        ("pid", "PID", "its number"), ("name", "NAME", "as the kernel has it"),
        ("argv0", "PROGRAM", "how it was started"), ("uid", "UID", "the number of its user"),
        ("script", "SCRIPT", "what an interpreter runs"),
        ("command", "COMMAND", "the words that it was started with"),
    )


def process_columns() -> Columns:
    pid, *others = process_words()
    rss = Column("rss", "RSS", "as in statm: a shared page counts in each process")
    return Columns((pid,), (rss, *others))


def overview_columns() -> Columns:
    pid, *others = process_words()
    by_name = {column.name: column for column in COLUMNS}
    return Columns((pid,), (*(by_name[name] for name in ("uss", "pss", "rss", "swap")), *others))


def file_columns() -> Columns:
    sort, system, device, charged, kept_by = words(
        ("sort", "SORT", "deleted, file, tmpfs, unnamed, device or gone"),
        ("file_system", "FILE SYSTEM", "the type of its file system"),
        ("device", "DEVICE", "the number of its file system's device"),
        ("charged", "CHARGED TO", "the cgroup that is charged for most of it"),
        ("kept_by", "KEPT BY", "the processes that have it open or mapped"),
    )
    return Columns(words(("name", "NAME", "where it can be seen, or what it is called")), (
        Column("cached", "CACHED", "what of it is in RAM"),
        Column("mapped", "MAPPED", "what processes map"),
        Column("dirty", "DIRTY", "what has to be written before it can go"),
        Column("active", "ACTIVE", "what was used again of late"),
        Column("huge", "HUGE", "what is in pages of 2 MiB or more"),
        charged, kept_by, sort, system, device,
        Column("inode", "INODE", "its number in its file system"),
        Column("links", "LINKS", "how many names it has"),
    ))


def slab_columns() -> Columns:
    charged = Column("charged", "CHARGED MOST", "who is charged for most; sorted by all charges")
    reclaimable = Column("reclaimable", "RECLAIM", "whether the kernel can shrink it")
    return Columns(words(("name", "CACHE", "its name")), (
        Column("size", "SIZE", "all RAM of its slabs"),
        Column("unused", "UNUSED", "what of it holds no object, at least"),
        Column("at_most", "OBJECTS", "how many are allocated, at most"),
        Column("at_least", "CERTAIN", "how many are allocated, at least"),
        Column("each", "EACH", "bytes of one object"),
        Column("places", "PLACES", "how many objects its slabs have room for"),
        Column("slabs", "SLABS", "how many there are"),
        reclaimable, charged,
    ))


def cgroup_columns() -> Columns:
    naming = words(("path", "CGROUP", "its path"))
    return Columns(naming, (
        Column("charged", "CHARGED", "what the kernel says is charged"),
        Column("limit", "LIMIT", "the most that may be"),
        Column("anon", "ANON", "anonymous memory"),
        Column("file", "FILE", "pages of files in cache"),
        Column("shmem", "SHMEM", "shared memory: tmpfs, memfd, SysV"),
        Column("kernel", "KERNEL", "kernel pages and objects"),
        Column("unmapped", "UNMAPPED", "of file and shmem what no process maps"),
        Column("reclaimable", "RECLAIM", "what could be reclaimed at once"),
    ))


def share_columns() -> Columns:
    name, program, parent = words(
        ("name", "NAME", "as the kernel has it"),
        ("program", "PROGRAM", "what it runs"), ("parent", "PARENT", "the pid of its parent"),
    )
    by_name = {column.name: column for column in COLUMNS}
    amounts = (by_name[name] for name in (
        "rss", "pss", "uss", "swap", "anon", "file", "shmem", "hugetlb", "freed"))
    tables = Column("page_tables", "TABLES", "its page tables")
    return Columns(words(("pid", "PID", "its number")), (*amounts, tables, name, program, parent))


def top_columns() -> Columns:
    (name,) = words(("name", "NAME", "what a process is called"),)
    by_name = {column.name: column for column in COLUMNS}
    amounts = (by_name[name] for name in ("uss", "pss", "rss", "swap"))
    naming = words(("key", "KEY", "a pid, a program, a user, a cgroup or a mapping"))
    return Columns(naming, (
        *amounts, Column("grown", "GROWN", "how much more RSS than on the last screen"),
        Column("processes", "PROCS", "how many address spaces"), name,
    ))


def who_columns() -> Columns:
    addr, perms, name, mapping = words(
        ("addr", "ADDRESS", "where it is mapped"), ("perms", "PERM", "access rights"),
        ("name", "NAME", "of the process, as the kernel has it"),
        ("mapping", "MAPPING", "what the VMA is called"),
    )
    return Columns(words(("pid", "PID", "the process that maps it")), (
        addr, perms, Column("offset", "OFFSET", "where in its file it begins", words=True),
        Column("size", "SIZE", "length of the mapping"),
        Column("rss", "RSS", "what of it is in RAM and mapped"),
        Column("pss", "PSS", "that, divided among all that map it"), name, mapping,
    ))


def cache_columns() -> Columns:
    kind, strip = words(
        ("kind", "KIND", "file, shmem or hugetlb"),
        ("strip", "START TO END", "a letter for each part of the file"),
    )
    return Columns(words(("name", "NAME", "the file"),), (
        Column("size", "SIZE", "length of the file, in whole pages"),
        Column("mapped", "MAPPED", "what page tables map of it, each page once"),
        Column("unmapped", "CACHED ONLY", "in the page cache and not mapped: a minor fault away"),
        Column("cached", "CACHED", "in the page cache, mapped or not"),
        Column("dirty", "DIRTY", "what must be written before it can go"),
        Column("writeback", "WRITEBACK", "what is being written"),
        Column("swapped", "SWAPPED", "what of shared memory is in swap"),
        Column("absent", "NOT IN RAM", "only on disk, or never written"),
        Column("copies", "COPIES", "private copies of its pages"),
        Column("covered", "ADDRESSES", "how much address space its mappings take"),
        Column("mappings", "MAPPINGS", "how many there are"), kind, strip,
    ))


def diff_columns() -> Columns:
    from pagewalk.history.changes import CLASSES

    kind, addr = words(("kind", "KIND", "the kind of memory"),
                       ("addr", "ADDRESS", "where it is; in CSV where it begins"))
    return Columns(words(("what", "WHAT", "the kind, what is mapped, or the process")), (
        Column("change", "CHANGE", "by how much RSS changed"),
        Column("before", "BEFORE", "RSS before"), Column("after", "AFTER", "RSS now"),
        Column("swap", "SWAP", "by how much that in swap changed"),
        Column("hugetlb", "HUGETLB", "by how much hugetlb pages changed, which are not in RSS"),
        *(Column(one.key, one.key.replace("_", " ").upper(), one.doc) for one in CLASSES),
        kind, Column("pid", "PID", "the process", words=True), addr,
    ))


TABLES: dict[str, Callable[[], Columns]] = {
    "show": kind_columns, "maps": vma_columns, "groups": group_columns, "pages": page_columns,
    "explain": ledger_columns, "heap": arena_columns, "check": difference_columns,
    "doctor": check_columns, "processes": process_columns, "files": file_columns,
    "huge": huge_columns, "huge_of_each": huge_of_each_columns,
    "cgroups": cgroup_columns, "slab": slab_columns, "share": share_columns,
    "top": top_columns, "who": who_columns, "overview": overview_columns,
    "cache": cache_columns, "diff": diff_columns,
}


def choose(
    table: str, columns: str | None = None, sort: str | None = None, limit: int | None = None
) -> Choice:
    """Return what the options ask of ``table``; raises BadRequest for a column that it lacks."""
    if columns is None and sort is None:
        return Choice(limit=limit)
    these = TABLES[table]()
    order = None if sort is None else named(sort.removeprefix("-"), these.known)
    chosen = None
    if columns is not None:
        asked = dict.fromkeys(named(word, these.known) for word in columns.split(","))
        chosen = tuple(column.name for column in asked if column not in these.naming)
    return Choice(chosen, order, sort is not None and sort.startswith("-"), limit)


def spelled(title: str) -> str:
    """Return a name as it is typed: ``NOT PRES`` is ``not_pres``."""
    return title.strip().lower().replace(" ", "_").replace("-", "_")


def named(word: str, known: Mapping[str, Column]) -> Column:
    """Return the column called ``word``, by its key or as it is printed; raises BadRequest."""
    from difflib import get_close_matches

    if spelled(word) in known:
        return known[spelled(word)]
    if word.split() and all(spelled(part) in known for part in word.split()):
        raise BadRequest(f"columns are separated by commas: {','.join(word.split())}")
    near = get_close_matches(spelled(word), known, 1)
    meant = f"did you mean '{known[near[0]].name}'? " if near else ""
    every = ", ".join(dict.fromkeys(column.name for column in known.values()))
    raise BadRequest(f"no column is called '{word}'; {meant}choose from: {every}")


def fields(
    table: str, row: Mapping[str, Any], columns: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return ``row``, an object of ``table``, with only the ``columns`` and what names it."""
    if columns is None:
        return dict(row)
    naming = [column.name for column in TABLES[table]().naming if column.name in row]
    return {name: row[name] for name in (*naming, *columns)}


def titles(table: str) -> dict[str, str]:
    """Return what is printed above each column of ``table``."""
    these = TABLES[table]()
    return {column.name: column.title for column in (*these.naming, *these.others)}
