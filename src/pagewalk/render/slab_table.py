"""Kernel objects by cache, in words and rows: the screen of ``ram --slab``, and its documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from pagewalk.render.amounts import kib, many, size
from pagewalk.render.columns import Choice, fields, titles
from pagewalk.render.file_table import UNKNOWN, Known
from pagewalk.render.terminal import printable, say, say_grid, shorten, width
from pagewalk.system.slabs import Cache, Charge, SlabReport

DEFAULT = ("size", "unused", "at_most", "each", "reclaimable", "charged")
AMOUNTS = ("size", "unused")
NUMBERS = (*AMOUNTS, "each", "slabs", "places", "at_least", "at_most")
# Hidden on a narrow terminal, in this order.
LEAST_WANTED = ("places", "at_least", "slabs", "each", "at_most", "charged", "reclaimable")
KEPT = 20  # columns that the name of a cache keeps, where something can be hidden
NARROWEST = 12  # columns of the name of a group
COLUMNS = (
    "name", "size", "unused", "each", "slabs", "places", "at_least", "at_most", "reclaimable",
    "charged",
)  # fmt: skip


def pick(report: SlabReport, choice: Choice, most: int | None = None) -> list[Cache]:
    """Return the caches that ``choice`` asks for, at most ``most`` if it has no limit."""
    chosen = choice if choice.limit is not None else choice._replace(limit=most)
    return chosen.rows(report.caches, cell)


def text(
    report: SlabReport, shown: Sequence[Cache], out: TextIO, *, known: Known = UNKNOWN,
    columns: Sequence[str] | None = None,
) -> None:
    """Write at most three sentences, then the caches ``shown``.

    Their sizes add up to the last row. OBJECTS is at most so many, UNUSED at least so much.
    """
    for sentence in answers(report, known):
        say(sentence, out, look="main")
    names = list(DEFAULT if columns is None else columns)
    order = [*(n for n in names if n in NUMBERS), *(n for n in names if n not in NUMBERS)]
    order.insert(len(order) - ("charged" in order), "name")
    room, titled = width(out), titles("slab")
    rows = [[titled[name] for name in order]]
    rows += [[_word(cache, name, known, room) for name in order] for cache in shown]
    listed = {id(cache) for cache in shown}
    rest = [cache for cache in report.caches if id(cache) not in listed]
    if rest:
        rows.append(_sum_line(rest, many(len(rest), "other"), order))
    rows.append(_sum_line(report.caches, f"total, {len(report.caches)} caches", order))
    left = {at for at, name in enumerate(order) if name not in NUMBERS and name != "reclaimable"}
    least = [order.index(name) for name in LEAST_WANTED if name in order]
    say_grid(rows, left, out, room=room, yields=order.index("name"), keeps=KEPT, least=least)
    if report.large:
        say(f"{size(report.large)} more are kmalloc of whole pages, in no cache.", out)
    if report.unread:
        say(f"slabs with {report.unread} objects went before it was read who is charged", out)


def answers(report: SlabReport, known: Known = UNKNOWN) -> Iterator[str]:
    """Yield what can be reclaimed, the largest cache and who is charged, and what holds nothing."""
    reclaimable, kept = (report.size(reclaimable=way) for way in (True, False))
    yield (f"{size(reclaimable + kept)} of RAM are kernel objects: {size(reclaimable)} the kernel"
           f" can shrink as far as nobody uses them, {size(kept)} it cannot.")
    if report.caches:
        first = report.caches[0]
        charged = _most(first, known)
        who = f", most of them charged to {charged}" if charged else ""
        yield (f"The largest cache is {_name(first)}: {size(first.size)}, at most {first.most}"
               f" objects of {first.each} bytes{who}.")
    if report.unused:
        ends = sum(cache.ends for cache in report.caches)
        yield (f"At least {size(report.unused)} of the slabs hold no object: {size(ends)} are ends"
               f" of slabs too short for one, the others are free places.")


def _most(cache: Cache, known: Known) -> str:
    # Who is charged for more than half of the objects, if anybody.
    first = next(iter(cache.charges or ()), None)
    return _group(first, known) if first is not None and 2 * first.objects > cache.most else ""


def _word(cache: Cache, name: str, known: Known, room: int | None) -> str:
    if name == "charged":
        return _charged(cache, known, room)
    if name == "name":
        return _name(cache)
    value = cell(cache, name)
    if name == "reclaimable":
        return "yes" if value else "no"
    return kib(value) if name in AMOUNTS else str(value)


def _sum_line(caches: Sequence[Cache], title: str, order: Sequence[str]) -> list[str]:
    summed = {name: sum(cell(cache, name) for cache in caches)
              for name in NUMBERS if name != "each"}
    words = {name: kib(total) if name in AMOUNTS else str(total)
             for name, total in summed.items()} | {"name": title}
    return [words.get(name, "") for name in order]


def _name(cache: Cache) -> str:
    return "a cache that could not be read" if cache.name is None else printable(cache.name)


def _charged(cache: Cache, known: Known, room: int | None) -> str:
    if cache.charges is None:
        return "n/a"
    if not cache.charges:
        return ""
    first, *rest = cache.charges
    others = f" and {many(len(rest), 'other')}" if rest else ""
    group = _group(first, known)
    if room is not None:
        group = shorten(group, max(room // 5, NARROWEST))
    return f"{kib(first.bytes)} {group}{others}"


def _group(charge: Charge, known: Known) -> str:
    if charge.group is None:
        return "a group that is gone"
    return printable(known.get(charge.group, charge.group))


# ---- documents


def cell(cache: Cache, name: str) -> Any:
    """Return what column ``name`` of the table says; ``charged`` is bytes of all groups."""
    if name == "charged":
        return None if cache.charges is None else sum(one.bytes for one in cache.charges)
    return getattr(cache, {"at_least": "least", "at_most": "most"}.get(name, name))


def document(
    report: SlabReport, shown: Sequence[Cache], known: Known = UNKNOWN,
    columns: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the keys of the JSON document: amounts in bytes, null where withheld."""
    return {
        "total": report.size(),
        "reclaimable": report.size(reclaimable=True),
        "unreclaimable": report.size(reclaimable=False),
        "unused_at_least": report.unused,
        "large_kmalloc": report.large,
        "objects_with_unread_owner": report.unread,
        "caches": [fields("slab", row(cache, known), columns) for cache in shown],
    }


def row(cache: Cache, known: Known = UNKNOWN) -> dict[str, Any]:
    """Return one cache of the JSON document."""
    charged = None if cache.charges is None else [
        {"group": one.group, "name": known.get(one.group or ""), "objects": one.objects,
         "bytes": one.bytes}
        for one in cache.charges
    ]  # fmt: skip
    return {name: charged if name == "charged" else cell(cache, name) for name in COLUMNS}


def records(
    shown: Sequence[Cache], columns: Sequence[str] | None = None
) -> Iterator[list[Any]]:
    """Yield the rows of the CSV file, the heading first."""
    names = COLUMNS if columns is None else ("name", *columns)
    yield list(names)
    for cache in shown:
        values = (cell(cache, name) for name in names)
        yield [int(value) if isinstance(value, bool) else value for value in values]
