"""Kernel objects by cache, in words and rows: the screen of ``ram --slab``, and its documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from pagewalk.render.amounts import kib, size
from pagewalk.render.terminal import printable, say, say_grid, shorten, width
from pagewalk.system.slabs import Cache, Charge, SlabReport

# The name of a group by its path.
Names = Callable[[str], str]

SHOWN = 20  # caches, without a limit
HEADINGS = ("SIZE", "UNUSED", "OBJECTS", "EACH", "RECLAIM", "CACHE", "CHARGED MOST")
LEFT = {5, 6}
LEAST_WANTED = (3, 2, 6, 4)  # hidden on a narrow terminal, in this order
KEPT = 20  # columns that the name of a cache keeps, where something can be hidden
NARROWEST = 12  # columns of the name of a group
COLUMNS = (
    "name", "size", "unused", "each", "slabs", "places", "at_least", "at_most", "reclaimable",
    "charged",
)  # fmt: skip


def _as_it_is(path: str) -> str:
    return path


def text(
    report: SlabReport, out: TextIO, names: Names = _as_it_is, *, limit: int | None = SHOWN
) -> None:
    """Write at most three sentences, then the largest caches; their sizes add up to the last row.

    OBJECTS is at most so many, UNUSED at least so much.
    """
    for sentence in answers(report, names):
        say(sentence, out, look="main")
    shown = report.caches[:limit]
    room = width(out)
    rows = [HEADINGS, *(_line(cache, names, room) for cache in shown)]
    rest = report.caches[len(shown) :]
    if rest:
        rows.append(_sum_line(rest, f"{len(rest)} other{'s' if len(rest) > 1 else ''}"))
    rows.append(_sum_line(report.caches, f"total, {len(report.caches)} caches"))
    say_grid(rows, LEFT, out, room=room, yields=5, keeps=KEPT, least=LEAST_WANTED)
    if report.large:
        say(f"{size(report.large)} more are kmalloc of whole pages, in no cache.", out)
    if report.unread:
        say(f"slabs with {report.unread} objects went before it was read who is charged", out)
    for row in report.withheld:
        say(f"{row.what}: withheld, {row.why}", out)


def answers(report: SlabReport, names: Names = _as_it_is) -> Iterator[str]:
    """Yield what can be had back, the largest cache and who is charged, and what holds nothing."""
    reclaimable, kept = (report.size(reclaimable=way) for way in (True, False))
    yield (f"{size(reclaimable + kept)} of RAM are kernel objects: {size(reclaimable)} the kernel"
           f" can shrink as far as nobody uses them, {size(kept)} it cannot.")
    if report.caches:
        first = report.caches[0]
        charged = _most(first, names)
        who = f", most of them charged to {charged}" if charged else ""
        yield (f"The largest cache is {_name(first)}: {size(first.size)}, at most {first.most}"
               f" objects of {first.each} bytes{who}.")
    if report.unused:
        ends = sum(cache.ends for cache in report.caches)
        yield (f"At least {size(report.unused)} of the slabs hold no object: {size(ends)} are ends"
               f" of slabs too short for one, the others are free places.")


def _most(cache: Cache, names: Names) -> str:
    # Who is charged for more than half of the objects, if anybody.
    first = next(iter(cache.charges or ()), None)
    return _group(first, names) if first is not None and 2 * first.objects > cache.most else ""


def _line(cache: Cache, names: Names, room: int | None) -> tuple[str, ...]:
    return (
        kib(cache.size), kib(cache.unused), str(cache.most), str(cache.each),
        "yes" if cache.reclaimable else "no", _name(cache), _charged(cache, names, room),
    )  # fmt: skip


def _sum_line(caches: Sequence[Cache], title: str) -> tuple[str, ...]:
    whole, unused = (kib(sum(getattr(c, name) for c in caches)) for name in ("size", "unused"))
    return whole, unused, str(sum(c.most for c in caches)), "", "", title, ""


def _name(cache: Cache) -> str:
    return "a cache that could not be read" if cache.name is None else printable(cache.name)


def _charged(cache: Cache, names: Names, room: int | None) -> str:
    if cache.charges is None:
        return "n/a"
    if not cache.charges:
        return ""
    first, *rest = cache.charges
    others = f" and {len(rest)} other{'s' if len(rest) > 1 else ''}" if rest else ""
    group = _group(first, names)
    if room is not None:
        group = shorten(group, max(room // 5, NARROWEST))
    return f"{kib(first.bytes)} {group}{others}"


def _group(charge: Charge, names: Names) -> str:
    return "a group that is gone" if charge.group is None else printable(names(charge.group))


# ---- documents


def document(report: SlabReport, names: Names = _as_it_is) -> dict[str, Any]:
    """Return the keys of the JSON document: amounts in bytes, null where withheld."""
    return {
        "total": report.size(),
        "reclaimable": report.size(reclaimable=True),
        "unreclaimable": report.size(reclaimable=False),
        "unused_at_least": report.unused,
        "large_kmalloc": report.large,
        "objects_with_unread_owner": report.unread,
        "caches": [row(cache, names) for cache in report.caches],
    }


def row(cache: Cache, names: Names = _as_it_is) -> dict[str, Any]:
    """Return one cache of the JSON document."""
    charged = None if cache.charges is None else [
        {"group": None if one.group is None else names(one.group), "objects": one.objects,
         "bytes": one.bytes}
        for one in cache.charges
    ]  # fmt: skip
    cells = (
        cache.name, cache.size, cache.unused, cache.each, cache.slabs, cache.places, cache.least,
        cache.most, cache.reclaimable, charged,
    )  # fmt: skip
    return dict(zip(COLUMNS, cells, strict=True))


def records(report: SlabReport, names: Names = _as_it_is) -> Iterator[list[Any]]:
    """Yield the rows of the CSV file, the heading first; ``charged`` is bytes of all groups."""
    yield list(COLUMNS)
    for cache in report.caches:
        cells = row(cache, names)
        every = cache.charges
        cells["charged"] = None if every is None else sum(one.bytes for one in every)
        yield list(cells.values())
