"""Large folios as they are mapped: the screen, the document and the rows of `maps --huge`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from pagewalk.account.folio_sums import WAYS
from pagewalk.account.huge import COLUMNS, Huge, Zeros, may_be_huge, value
from pagewalk.model.columns import Withheld
from pagewalk.render.amounts import kib, many, size
from pagewalk.render.columns import fields, titles
from pagewalk.render.document import missing, write
from pagewalk.render.share_table import left_out
from pagewalk.render.terminal import following, printable, say, say_grid, say_missing, width
from pagewalk.system.huge import HugeOfEach, Row

SHOWN_COLUMNS = ("rss", "pmd", "contiguous", "unaligned", "partly", "missing")
IF_ANY = ("stranded", "huge_zero", "hugetlb")
PLACES = ("end", "offset")
LEAST_WANTED = ("huge_zero", "missing", "unaligned", "stranded", "contiguous")


def text(
    found: Huge, rows: Sequence[int], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write what is huge, what is broken up, the VMAs ``rows``, and the folios by size."""
    for sentence in answers(found):
        say(sentence, out)
    print(file=out)
    shown = chosen(found, columns)
    say_vmas(found, rows, shown, out)
    every = len(may_be_huge(found))
    if len(rows) < every:
        say(f"{every - len(rows)} more: --limit {every} shows all", out)
    if found.sizes and columns is None:
        print(file=out)
        say_sizes(found, out)
    say_missing(about(found.table.outcome.withheld, [n for n in shown if hidden(found, n)]), out)
    pid = found.table.walk.pid
    zeros = found.totals["anon_huge"] and found.zeros is None
    following(out, *([f"maps {pid} --huge --zeros"] if zeros else ()), f"maps {pid} --sort rss",
              "ram")


def chosen(found: Huge, columns: Sequence[str] | None) -> list[str]:
    """Return the columns to show: ``columns``, or those that say something."""
    if columns is not None:
        return list(columns)
    more = [name for name in IF_ANY if found.totals[name]]
    return [*SHOWN_COLUMNS, *more, *(["zeros"] if found.zeros else ())]


def hidden(found: Huge, name: str) -> bool:
    return name in found.columns and found.columns[name] is None


def about(withheld: Iterable[Withheld], names: Sequence[str]) -> list[Withheld]:
    """Return those of ``withheld`` that make the answer partial or say why one of ``names`` is
    missing."""
    return [row for row in withheld if row.partial or any(name in row.what for name in names)]


def say_vmas(found: Huge, rows: Sequence[int], shown: Sequence[str], out: TextIO) -> None:
    vmas, above = found.table.vmas, titles("huge")
    grid = [("ADDRESS", *(above[name] for name in shown), "NAME")]
    grid += [(f"{vmas.start[row]:012x}", *(cell(found, row, name) for name in shown),
              printable(vmas.name[row]) or "[anon]") for row in rows]
    foot = (total(found, name) for name in shown)
    grid.append(("", *foot, f"total of {many(len(vmas), 'VMA')}"))
    least = [shown.index(name) + 1 for name in LEAST_WANTED if name in shown]
    say_grid(grid, {0, len(shown) + 1}, out, room=width(out), yields=len(shown) + 1,
             least=[*least, *(at for at in range(len(shown), 0, -1) if at not in least)])


def cell(found: Huge, row: int, name: str) -> str:
    told = value(found, row, name)
    if name in PLACES:
        assert isinstance(told, int)
        return f"{told:x}"
    if name == "eligible":
        return "n/a" if told is None else str(told)
    assert not isinstance(told, str)
    return kib(told)


def total(found: Huge, name: str) -> str:
    return "" if name in PLACES or name == "eligible" else kib(found.totals[name])


def say_sizes(found: Huge, out: TextIO) -> None:
    above = titles("huge")
    assert found.sizes is not None
    ways = [way for way in WAYS if any(getattr(row, way) for row in found.sizes)]
    grid = [("FOLIO", "FOLIOS", *(above[way] for way in ways))]
    grid += [(kib(row.size), str(row.folios), *(kib(getattr(row, way)) for way in ways))
             for row in found.sizes]
    say_grid(grid, set(), out, room=width(out))


# ---- sentences


def answers(found: Huge) -> Iterator[str]:
    """Yield at most three sentences: what is huge, what is broken up, and what is zero."""
    yield huge_words(found)
    broken = broken_words(found)
    if broken:
        yield broken
    if found.zeros is not None:
        yield zero_words(found.zeros, found)


def huge_words(found: Huge) -> str:
    rss, pmd, contiguous = (found.totals[name] for name in ("rss", "pmd", "contiguous"))
    ram = "what is in RAM" if rss is None else f"the {size(rss)} in RAM"
    if pmd is None:
        first = f"How much of {ram} is in huge pages cannot be told here"
    elif not pmd:
        first = f"None of {ram} is in huge pages"
    else:
        share = f" ({100 * pmd / rss:.0f}%)" if rss else ""
        first = f"{size(pmd)} of {ram}{share} is in huge pages, mapped by one entry each"
    if contiguous:
        first += f"; {size(contiguous)} more is other large folios, whole and aligned"
    if hugetlb := found.totals["hugetlb"]:
        first += f"; besides, {size(hugetlb)} is hugetlb pages"
    return first + "."


def broken_words(found: Huge) -> str:
    partly, unaligned, missing, stranded = (
        found.totals[name] for name in ("partly", "unaligned", "missing", "stranded"))
    parts = []
    if partly:
        rest = f"{size(missing)} of these folios is mapped nowhere in the process"
        if stranded:
            rest += (f", {size(stranded)} by nobody: in RAM until the kernel splits them")
        parts.append(f"{size(partly)} in large folios that a mapping has only in part ({rest})")
    if unaligned:
        parts.append(f"{size(unaligned)} in whole ones at addresses where no larger entry fits")
    if not parts:
        return ""
    return f"Broken up, with an entry for each page: {', and '.join(parts)}."


def zero_words(zeros: Zeros, found: Huge) -> str:
    amount, pages = int(zeros.by_vma.sum()), 1 << found.table.walk.facts.pmd_order
    if not zeros.looked:
        return "There are no anonymous huge pages to look into."
    first = (f"{size(amount)} of the {size(zeros.looked - zeros.moved)} in anonymous huge pages"
             " contains only zeros, which splitting them would give back")
    if not amount or zeros.most is None:
        return first + "."
    if zeros.most >= pages:
        return first + "; the kernel is set to split none of them for that."
    return (f"{first}; {size(zeros.underused)} of it is in those that the kernel splits when memory"
            f" runs short, with more than {zeros.most} of {pages} pages zero.")


# ---- documents


def document(
    found: Huge, rows: Sequence[int], columns: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the keys of the JSON document: amounts in bytes, null where withheld."""
    zeros = found.zeros
    return {
        "totals": {column.name: found.totals[column.name] for column in COLUMNS
                   if column.name != "eligible"},
        "sizes": None if found.sizes is None else [row._asdict() for row in found.sizes],
        "zeros": None if zeros is None else {
            "bytes": int(zeros.by_vma.sum()), "looked": zeros.looked, "moved": zeros.moved,
            "underused": zeros.underused, "splits_above": zeros.most,
        },
        "vmas": [fields("huge", vma(found, row), columns) for row in rows],
    }


def vma(found: Huge, row: int) -> dict[str, Any]:
    told = {name: value(found, row, name) for name in titles("huge")}
    return {**told, "start": hex(int(found.table.vmas.start[row])),
            "end": hex(int(found.table.vmas.end[row]))}


def records(
    found: Huge, rows: Sequence[int], columns: Sequence[str] | None = None
) -> Iterator[list[Any]]:
    """Yield the rows of the CSV file, the heading first."""
    naming = ("start", "perms", "name")
    names = list(titles("huge")) if columns is None else [*naming, *columns]
    yield names
    for row in rows:
        told = {name: value(found, row, name) for name in names}
        yield [hex(int(told[name])) if name in ("start", "end") else told[name]  # type: ignore[arg-type]
               for name in names]


# ---- of several processes


def text_of_each(
    found: HugeOfEach, rows: Sequence[Row], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write what all have in huge pages, and a line for each of ``rows``."""
    say(sum_words(found), out)
    print(file=out)
    above = titles("huge_of_each")
    shown = [*SHOWN_COLUMNS, *(n for n in IF_ANY if any(row.amounts[n] for row in found.rows)),
             *(["zeros"] if any(row.amounts["zeros"] is not None for row in found.rows) else ()),
             "name"] if columns is None else list(columns)
    grid = [("PID", *(above[name] for name in shown))]
    grid += [(str(row.pid), *(cell_of(row, name) for name in shown)) for row in rows]
    words = {at for at, name in enumerate(shown, 1) if name == "name"}
    least = [shown.index(name) + 1 for name in LEAST_WANTED if name in shown]
    say_grid(grid, words, out, room=width(out), yields=max(words, default=len(shown)),
             least=[*least, *(at for at in range(len(shown), 0, -1) if at not in least)])
    if len(rows) < len(found.rows):
        say(f"{len(found.rows) - len(rows)} more: --limit {len(found.rows)} shows all", out)
    none = [n for n in shown if n != "name" and all(row.amounts[n] is None for row in found.rows)]
    say_missing(about(found.looked.tried.withheld, none), out)
    if rows:
        following(out, f"maps {rows[0].pid} --huge", "top", "ram")


def sum_words(found: HugeOfEach) -> str:
    rss, pmd, partly = (found.sum_of(name) for name in ("rss", "pmd", "partly"))
    first = (f"{many(len(found.rows), 'process', 'es')}: RSS adds up to {size(rss)};"
             f" {size(pmd)} of it is in huge pages, mapped by one entry each")
    if partly:
        first += f", {size(partly)} in large folios that a mapping has only in part"
    return first + "."


def cell_of(row: Row, name: str) -> str:
    return printable(row.name) if name == "name" else kib(row.amounts[name])


def json_of_each(
    found: HugeOfEach, rows: Sequence[Row], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write how each process maps large folios, in the order of ``rows``."""
    tried = found.looked.tried
    write({
        "source": {"name": tried.source},
        "processes": [fields("huge_of_each", {"pid": row.pid, **row.amounts, "name": row.name},
                             columns) for row in rows],
        **left_out(tried), **missing(tried.withheld), "stall_ns": tried.stall_ns,
    }, out)


def records_of_each(
    found: HugeOfEach, rows: Sequence[Row], columns: Sequence[str] | None = None
) -> Iterator[list[Any]]:
    """Yield the rows of the CSV file, the heading first."""
    del found
    names = list(titles("huge_of_each")) if columns is None else ["pid", *columns]
    yield names
    yield from ([row.value(name) for name in names] for row in rows)
