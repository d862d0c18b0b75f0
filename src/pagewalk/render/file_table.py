"""The page cache by file, in words and rows: the screen of ``ram --files``, and its documents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TextIO

from pagewalk.kernel.structs.open_files import Holder
from pagewalk.proc.files import decode_name
from pagewalk.render.amounts import kib, many, size
from pagewalk.render.columns import Choice, fields, titles
from pagewalk.render.document import missing
from pagewalk.render.terminal import printable, say, say_grid, say_missing, shorten, width
from pagewalk.system.files import Amounts, CachedFile, Deleted, FilesReport, FilesTotal, Sort

# The name of whoever is charged, by a word as in Frames.owner; None if it is not known.
Names = Callable[[int], str | None]
# What people call the groups whose path does not say it, by path: "container web".
Known = Mapping[str, str]

UNKNOWN: Known = MappingProxyType({})

SHOWN = 10  # files of each sort, without --limit
AMOUNTS = ("cached", "mapped", "dirty", "active", "huge")
NUMBERS = (*AMOUNTS, "inode", "links")
COLUMNS = ("cached", "mapped", "dirty", "charged")
LEAST_WANTED = ("links", "inode", "device", "file_system", "huge", "active", "dirty", "sort",
                "kept_by", "charged", "mapped")  # hidden on a narrow terminal, in this order
KEPT = 36  # columns that a name keeps, where something can be hidden
NARROWEST = 12  # columns of a word beside the name
KEEPERS = 2  # processes that are named beside a file
IN_RAM = ("tmpfs", "devtmpfs")  # memfd, SysV and shared anonymous memory are on a tmpfs too
HEADINGS = {
    Sort.DELETED: "deleted files",
    Sort.FILE: "files",
    Sort.TMPFS: "files on tmpfs",
    Sort.UNNAMED: "memory without a file (memfd, SysV, shared anonymous)",
    Sort.DEVICE: "block devices",
    Sort.GONE: "gone meanwhile",
}


class _Row(NamedTuple):
    # A line of the table: the cells are those of its amounts, its name, and of words about it.
    amounts: Amounts
    what: str
    words: Mapping[str, str]
    look: str = ""


# ---- one file in words


def name_of(file: CachedFile) -> str:
    """Return what a file is called: where it can be opened, else what is known of it."""
    if gone(file):
        return "went before its name was read"
    if file.sort is Sort.DEVICE:
        return f"block device {device(file)}"
    if file.place is not None:
        return decode_name(file.place.path)
    return file.inside or f"inode {file.inode} on {file.file_system} {device(file)}"


def gone(file: CachedFile) -> bool:
    """Return whether a file had no pages any more when it was looked up."""
    return file.sort is Sort.GONE or not file.file_system


def is_shared_anonymous(file: CachedFile) -> bool:
    """Return whether it is memory that was mapped as MAP_SHARED | MAP_ANONYMOUS (mm/shmem.c)."""
    return file.inside == "dev/zero" and file.sort is Sort.UNNAMED


def device(file: CachedFile) -> str:
    """Return the number of a file's device as the kernel prints it, ``254:0``."""
    return f"{file.dev >> 32}:{file.dev & 0xFFFF_FFFF}"


def remark(file: CachedFile) -> str:
    """Return what its name does not tell: that it is deleted, where it is, and who keeps it."""
    parts = []
    if file.sort is Sort.DELETED:
        parts.append("deleted")
    elif file.removed:
        parts.append("this name was removed, another is left")
    if file.sort not in (Sort.UNNAMED, Sort.DEVICE) and not gone(file):
        parts.append(where(file))
    if is_shared_anonymous(file):
        parts.append("shared anonymous memory")
    if file.kept_by is not None:
        parts.append(keepers(file))
    return ", ".join(filter(None, parts))


def where(file: CachedFile) -> str:
    if file.place is not None:
        pid = file.place.pid
        return "" if pid is None else f"as pid {pid} sees it"
    if file.inside is None:
        return "its name is not in memory"
    return f"in {file.file_system} {device(file)}, which is not mounted here"


def keepers(file: CachedFile) -> str:
    """Return who keeps a file that would otherwise be gone, the first of them by name."""
    kept = file.kept_by or ()
    if not kept:
        return "no process has it open or mapped"
    named = [keeper(one) for one in kept[:KEEPERS]]
    more = len(kept) - len(named)
    others = f" and {many(more, 'other')}" if more else ""
    return f"kept by {', '.join(named)}{others}"


def keeper(one: Holder) -> str:
    """Return what a process that keeps a file is called: ``812 java``."""
    return f"{one.comm} (pid {one.pid} on the host)" if one.on_host else f"{one.pid} {one.comm}"


def charged(file: CachedFile, names: Names, known: Known = UNKNOWN) -> str:
    """Return who is charged for most of a file, and how many others are for the rest."""
    if file.charges is None:
        return "n/a"
    if not file.charges:
        return ""
    first, *rest = file.charges
    others = f" and {many(len(rest), 'other')}" if rest else ""
    path = owner(first.owner, names)
    return known.get(path, path) + others


def owner(word: int, names: Names) -> str:
    return (names(word) or f"a group that is gone ({word:#x})") if word else "nobody"


def owners(report: FilesReport, names: Names) -> set[str]:
    """Return the paths of the groups that are charged for the files listed."""
    words = {one.owner for file in report.files for one in file.charges or ()}
    return {path for word in words if (path := names(word))}


# ---- the screen


def pick(report: FilesReport, names: Names, choice: Choice) -> FilesReport:
    """Return the report with the files of each sort that ``choice`` asks for, in its order."""
    files = [file for sort in Sort for file in choice.rows(
        [file for file in report.files if file.sort is sort],
        lambda file, name: cell(file, name, names),
    )]
    return report._replace(files=tuple(files))


def text(
    report: FilesReport, names: Names, out: TextIO, columns: Sequence[str] | None = None,
    known: Known = UNKNOWN,
) -> None:
    """Write at most three sentences, and the files of each sort below the sum of all of them.

    The rows of a sort add up to its sum, and the sums to the first row.
    """
    for sentence in answers(report):
        say(sentence, out, look="main")
    shown = list(COLUMNS if columns is None else columns)
    order = [*(n for n in shown if n in NUMBERS), *(n for n in shown if n not in NUMBERS), "name"]
    rows, room, titled = list(_rows(report, names, known)), width(out), titles("files")
    longest = None if room is None else max(room // 4, NARROWEST)
    grid = [[titled[name] for name in order]]
    grid += [[_cell(row, name, longest) for name in order] for row in rows]
    left = {at for at, name in enumerate(order) if name not in NUMBERS}
    least = [order.index(name) for name in LEAST_WANTED if name in order]
    say_grid(grid, left, out, room=room, yields=len(order) - 1, keeps=KEPT, least=least,
             looks=[row.look for row in rows])
    say_missing(report.withheld, out)
    if not report.holders_complete:
        say("more processes may keep a file: there are more descriptors than are looked at", out)


def answers(report: FilesReport) -> Iterator[str]:
    """Yield what is cached and not mapped, what is deleted and who keeps it, what has no disk."""
    whole = _sum(report.totals.values()).amounts
    yield (f"{size(whole.cached)} of RAM are page cache and shared memory; no process maps"
           f" {size(whole.unmapped)} of it.")
    deleted = report.totals[Sort.DELETED]
    largest = max((file for file in report.files if file.sort is Sort.DELETED),
                  key=lambda file: file.amounts.cached, default=None)
    if largest is not None and deleted.amounts.cached:
        yield deleted_words(Deleted(*deleted, largest))
    # By file system, not by sort: deleted files of a tmpfs are among them.
    lasting = sum(report.systems[name].amounts.cached for name in IN_RAM if name in report.systems)
    if lasting:
        yield (f"{size(lasting)} are files on tmpfs and shared memory: their only place is"
               " RAM, so they can go to swap, if there is any, but not be dropped.")


def deleted_words(deleted: Deleted) -> str:
    """Return a sentence about deleted files of which something is in RAM."""
    largest = deleted.largest
    assert largest is not None
    kept = f", {keepers(largest)}" if largest.kept_by is not None else ""
    name = printable(name_of(largest))
    one = f"one deleted file, {name}" if deleted.files == 1 else (
        f"{deleted.files} deleted files; the largest is {name}, {size(largest.amounts.cached)}"
    )
    return f"{size(deleted.amounts.cached)} are {one}{printable(kept)}."


def _rows(report: FilesReport, names: Names, known: Known) -> Iterator[_Row]:
    every = _sum(report.totals.values())
    yield _Row(every.amounts, f"page cache and shared memory, {every.files}", {}, "main")
    for sort, total in report.totals.items():
        if not total.files:
            continue
        yield _Row(total.amounts, f"{HEADINGS[sort]}, {total.files}", {}, "main")
        chosen = [file for file in report.files if file.sort is sort and sort is not Sort.GONE]
        for file in chosen:
            words = {name: _words(file, name, names, known) for name in titles("files")}
            yield _Row(file.amounts, f"  {_what(file)}", words)
        rest = total.files - len(chosen)
        if chosen and rest:
            yield _Row(_less(total.amounts, chosen), f"  {many(rest, 'other')}", {})


def _what(file: CachedFile) -> str:
    return printable(", ".join(filter(None, (name_of(file), remark(file)))))


def _words(file: CachedFile, name: str, names: Names, known: Known) -> str:
    told = name == "charged" and file.charges is not None
    value = charged(file, names, known) if told else cell(file, name, names)
    if value is None:
        return "n/a" if name == "charged" else ""
    return printable(str(value))


def _cell(row: _Row, name: str, longest: int | None) -> str:
    if name == "name":
        return row.what
    if name in AMOUNTS:
        return kib(getattr(row.amounts, name))
    text = row.words.get(name, "")
    return text if longest is None else shorten(text, longest)


def _sum(every: Collection[FilesTotal]) -> FilesTotal:
    columns = zip(*(total.amounts for total in every), strict=True)
    return FilesTotal(sum(total.files for total in every), Amounts._make(map(_add, columns)))


def _less(total: Amounts, files: Sequence[CachedFile]) -> Amounts:
    shown = zip(*(file.amounts for file in files), strict=True)
    pairs = zip(total, map(_add, shown), strict=True)
    return Amounts._make(None if whole is None else whole - part for whole, part in pairs)


def _add(amounts: Sequence[int | None]) -> Any:  # None if one of them is
    return None if None in amounts else sum(filter(None, amounts))


# ---- documents


def cell(file: CachedFile, name: str, names: Names) -> Any:
    """Return what column ``name`` of the table says of a file; None if it is withheld."""
    if name in AMOUNTS:
        return getattr(file.amounts, name)
    if name == "kept_by":
        kept = file.kept_by
        return None if kept is None else "|".join(map(keeper, kept))
    told: dict[str, Callable[[], Any]] = {
        "name": lambda: name_of(file), "sort": file.sort.name.lower,
        "file_system": lambda: file.file_system, "device": lambda: device(file),
        "inode": lambda: file.inode, "links": lambda: file.nlink,
        "charged": lambda: None if file.charges is None else charged(file, names),
    }
    return told[name]()


def document(
    report: FilesReport, names: Names, columns: Sequence[str] | None = None,
    known: Known = UNKNOWN,
) -> dict[str, Any]:
    """Return the keys of the JSON document: amounts in bytes, null where withheld."""
    return {
        "files": [fields("files", row(file, names, known), columns) for file in report.files],
        "totals": {sort.name.lower(): totals(total) for sort, total in report.totals.items()},
        "file_systems": [{"file_system": name or None, **totals(total)}
                         for name, total in report.systems.items() if total.files],
        "holders_complete": report.holders_complete,
        **missing(report.withheld),
    }


def totals(total: FilesTotal) -> dict[str, Any]:
    return {"files": total.files, **total.amounts._asdict()}


def row(file: CachedFile, names: Names, known: Known = UNKNOWN) -> dict[str, Any]:
    """Return one file of the JSON document."""
    place = file.place
    return {
        "name": name_of(file),
        "sort": file.sort.name.lower(),
        **file.amounts._asdict(),
        "file_system": file.file_system,
        "device": device(file),
        "inode": file.inode,
        "links": file.nlink,
        "inside": file.inside,
        "removed": file.removed,
        "path": None if place is None else decode_name(place.path),
        "also": [] if place is None else [decode_name(path) for path in place.also],
        "seen_by": None if place is None else place.pid,
        "charged": None if file.charges is None else [
            {"owner": path, "name": known.get(path), "bytes": one.bytes}
            for one in file.charges for path in (owner(one.owner, names),)
        ],
        "kept_by": None if file.kept_by is None else [one._asdict() for one in file.kept_by],
    }


def records(
    report: FilesReport, names: Names, columns: Sequence[str] | None = None
) -> Iterator[list[Any]]:
    """Yield the rows of the CSV file, the heading first; newlines as in /proc/PID/maps."""
    shown = list(titles("files")) if columns is None else ["name", *columns]
    yield shown
    for file in report.files:
        cells = (cell(file, name, names) for name in shown)
        yield [one.replace("\n", "\\012") if isinstance(one, str) else one for one in cells]
