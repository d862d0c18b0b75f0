"""The columns of a recording: what each row may hold, and how it is encoded.

A recording is one Parquet file, whose rows are of several kinds: the column ``record`` says which,
and so which of the other columns are used. A row group has rows of one kind only. docs/recording.md
documents every column for other programs.
"""

from typing import NamedTuple

VERSION = 1
KEY = "pagewalk"  # of the footer's metadata: JSON, see Meta
MAGIC = b"PAR1"  # what every Parquet file begins and ends with

INTEGER, TEXT, LABEL = "int64", "string", "label"


class Column(NamedTuple):
    """A column: ``kind`` is INTEGER, TEXT, or LABEL, a text of few values.

    ``rising``: its values mostly rise, so their differences are stored.
    """

    name: str
    kind: str
    doc: str
    rising: bool = False


COLUMNS = (
    Column("record", LABEL, "what the row is; the other columns follow from it"),
    Column("pid", INTEGER, "process; of an address space that several have, the lowest"),
    Column("parent", INTEGER, "process that it is a child of; inode of the cgroup above"),
    Column("mm", INTEGER, "lowest pid of those recorded that have the same address space"),
    Column("uid", INTEGER, "real user"),
    Column("started", INTEGER, "when it was started: nanoseconds since boot"),
    Column("name", TEXT, "of a process, a mapping, a part of RAM, a file, a slab cache, a document;"
           " what people call a cgroup"),
    Column("program", TEXT, "path of the program"),
    Column("command", TEXT, "how it was started"),
    Column("cgroup", TEXT, "path of the memory cgroup"),
    Column("vma", INTEGER, "row of the process's VMAs, from 0"),
    Column("start", INTEGER, "first address", rising=True),
    Column("end", INTEGER, "end of the VMA, exclusive", rising=True),
    Column("perms", INTEGER, "bits r 1, w 2, x 4, s 8 (shared)"),
    Column("offset", INTEGER, "of the VMA in its file, bytes", rising=True),
    Column("dev", INTEGER, "device of a file: major << 32 | minor"),
    Column("inode", INTEGER, "inode of a file or a cgroup"),
    Column("backing", INTEGER, "what a VMA maps: 0 anonymous, 1 file, 2 shmem, 3 hugetlb, 4 driver,"
           " 5 kernel, 6 hidden, 7 gate"),
    Column("vm_flags", INTEGER, "vm_flags of the VMA"),
    Column("shmem_swap", INTEGER, "swapped-out bytes of the shmem object under a VMA"),
    Column("locked", INTEGER, "1 if the VMA is mlocked"),
    Column("state", LABEL, "of pages as `pagewalk pages` prints it; the sort of a file; what a part"
           " of RAM belongs to; what a cgroup is"),
    Column("size", INTEGER, "bytes: of all pages of the run, of a VMA, of an amount"),
    Column("unit", INTEGER, "bytes of each page of the run, of each object of a cache"),
    Column("level", INTEGER, "of a hole: the level of the page tables at which it is"),
    Column("flags", INTEGER, "of the page-table entry"),
    Column("frame", INTEGER, "number of the first frame; of swap its place", rising=True),
    Column("step", INTEGER, "by how much the number rises from one page of the run to the next"),
    Column("kflags", INTEGER, "flags of the frame, as in /proc/kpageflags"),
    Column("mapcount", INTEGER, "how often each page of the run is mapped, by anybody"),
    Column("entry", INTEGER, "the raw word of a malformed entry"),
    *(Column(name, INTEGER, "bytes, as `pagewalk maps` shows them") for name in (
        "present", "rss", "not_present", "not_mapped", "swap", "pss", "uss", "anon", "file",
        "shmem", "zero", "special", "hugetlb", "distinct", "freed", "page_tables")),
    Column("text", TEXT, "JSON of a document"),
    Column("moment", INTEGER, "when the recording was begun: nanoseconds since 1970"),
    Column("uptime", INTEGER, "when it was begun: nanoseconds since the machine was booted"),
    Column("boot", TEXT, "id of that boot"),
    Column("of_cgroup", TEXT, "cgroup that was looked at, of whose charge this is a part; null: of"
           " all of RAM"),
    Column("charged", INTEGER, "bytes that the cgroup beside it is charged for"),
    Column("file_system", LABEL, "type of the file system"),
    Column("mapped", INTEGER, "bytes of a file that some process maps"),
    Column("dirty", INTEGER, "bytes of a file that are still to be written"),
    Column("active", INTEGER, "bytes of a file on the active list"),
    Column("huge", INTEGER, "bytes of a file in huge pages"),
    Column("items", INTEGER, "files that the row stands for; objects of a cache, at most"),
    Column("reclaimable", INTEGER, "bytes of a cache that can shrink; of a cgroup, what could be"
           " reclaimed at once"),
    Column("allowed", INTEGER, "bytes that a cgroup may be charged for; null: no limit"),
    Column("kernel", INTEGER, "bytes of a cgroup that the kernel has for it"),
    Column("unmapped", INTEGER, "bytes of files and shared memory of a cgroup that nobody maps"),
    Column("removed", INTEGER, "1 if a cgroup was removed and lives on"),
)
NAMES = tuple(column.name for column in COLUMNS)

# Which columns each kind of row uses; the others are null.
AMOUNTS = ("present", "rss", "not_present", "not_mapped", "swap", "pss", "uss", "anon", "file",
           "shmem", "zero", "special", "hugetlb", "distinct", "freed")
RECORDS = {
    "process": ("pid", "parent", "mm", "uid", "started", "name", "program", "command", "cgroup",
                "size", *AMOUNTS, "page_tables"),
    "vma": ("pid", "vma", "start", "end", "perms", "offset", "dev", "inode", "backing", "name",
            "vm_flags", "shmem_swap", "locked", "size", *AMOUNTS),
    "page": ("pid", "vma", "state", "start", "size", "unit", "level", "flags", "frame", "step",
             "kflags", "mapcount", "entry"),
    "document": ("pid", "name", "text"),
    "meta": ("name", "state", "moment", "uptime", "boot", "unit", "text"),
    "ram": ("of_cgroup", "state", "name", "size"),
    "file": ("of_cgroup", "state", "name", "dev", "inode", "file_system", "size", "mapped", "dirty",
             "active", "huge", "items", "cgroup", "charged"),
    "cache": ("of_cgroup", "name", "size", "unit", "items", "reclaimable", "cgroup", "charged"),
    "group": ("cgroup", "state", "name", "inode", "parent", "size", "allowed", "anon", "file",
              "shmem", "kernel", "unmapped", "reclaimable", "swap", "removed"),
}


class Meta(NamedTuple):
    """What the footer says of the whole recording.

    ``schema`` is VERSION of the program that wrote it, ``pagewalk`` its version. ``time`` is when
    it was begun, nanoseconds since 1970, ``took`` how long it took; ``host`` and ``boot`` (the boot
    id) are the machine's. ``physical``: frames have their true numbers, else numbers given as they
    were met. ``scrubbed``: paths, command lines, and the names of files, cgroups, containers and
    users are not in it. ``reason`` is why it was made, empty if somebody asked for it. ``set`` is
    what was recorded, in words. ``uptime`` is when it was begun too, nanoseconds since the machine
    was booted: nobody sets that clock. ``refused`` is how many processes could not be recorded.
    """

    schema: int
    pagewalk: str
    time: int
    took: int
    host: str
    boot: str
    kernel: str
    physical: bool
    scrubbed: bool
    set: str
    reason: str = ""
    uptime: int = 0
    refused: int = 0
