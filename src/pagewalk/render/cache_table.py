"""Files that processes map, and what of them is in RAM: the screen and document of `maps --cache`.

A strip is a file from its beginning to its end, a letter for each part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from pagewalk.model.columns import I64
from pagewalk.render.amounts import kib, many, size
from pagewalk.render.columns import fields, titles
from pagewalk.render.document import missing, write
from pagewalk.render.terminal import following, printable, say, say_grid, say_missing, width
from pagewalk.system.file_cache import CELLS, CacheLook, Cells, FileCache

ACROSS = 64  # letters in a line of a file's own picture
COLUMNS = ("size", "mapped", "unmapped", "dirty", "absent", "strip")
EVERY = ("size", "mapped", "unmapped", "cached", "dirty", "writeback", "swapped", "absent",
         "copies", "covered", "mappings", "kind")
WORDS = ("strip", "kind", "name")
LEGEND = ("M: mapped; C: only in the page cache; S: in swap; a dot: not in RAM. A capital is most"
          " of that part of the file, a small letter what is in RAM where most is not.")


def text(
    found: CacheLook, rows: Sequence[FileCache], out: TextIO, *,
    columns: Sequence[str] | None = None,
) -> None:
    """Write the sentences, the files ``rows``, or a single file's picture."""
    for sentence in answers(found):
        say(sentence, out)
    if rows:
        print(file=out)
        say_files(rows, out, COLUMNS if columns is None else columns)
        if len(rows) < len(found.files):
            every = len(found.files)
            say(f"{every - len(rows)} more: --limit {every} shows all", out)
        if len(found.files) == 1 and rows[0].cells is not None and columns is None:
            print(file=out)
            for line in picture(rows[0].cells):
                print(line, file=out)
        if columns is None or "strip" in columns:
            unknown = any(one.cells is not None and one.cells.cached is None for one in rows)
            say(LEGEND + " A question mark: not known." * unknown, out, look="aside")
    say_missing(found.withheld, out)
    if found.who is not None:
        following(out, f"maps {found.who.pid} --by file", "ram --files")
    else:
        following(out, f"who --file {printable(found.asked or '')}", "ram --files")


def answers(found: CacheLook) -> Iterator[str]:
    """Yield what is mapped, what else is in RAM, and which file most of it is."""
    told = [one for one in found.files if one.cached is not None]
    if found.who is not None:
        who = f"{found.who.pid} {printable(found.who.name)}"
        some = (f"; what is in RAM is known of {len(told)} of them,"
                if 0 < len(told) < len(found.files) else "")
        yield f"{who} maps {many(len(found.files), 'file')}{some}{split(told) if told else ''}."
        largest = max(told, key=lambda one: one.size or 0, default=None)
        whole = sum(one.size or 0 for one in told)
        if largest and len(told) > 1 and 2 * (largest.size or 0) > whole:
            yield f"Most of that is {printable(largest.name)}{split([largest])}."
    else:
        [file] = found.files
        yield f"{printable(file.name)} is a file{split(told) if told else ''}."
        are = "is" if file.mappings == 1 else "are"
        yield (f"There {are} {many(file.mappings, 'mapping')} of it." if file.mappings
               else "No process that could be looked at maps it.")
    dirty = sum(one.dirty or 0 for one in told)
    if dirty:
        yield f"{size(dirty)} in the page cache must be written before it can go."


def split(files: Sequence[FileCache]) -> str:
    """Return how much of ``files`` is mapped, in the page cache, in swap and in neither."""
    disk = all(one.kind == "file" for one in files)
    said = {"mapped": "mapped", "unmapped": "in the page cache and not mapped",
            "swapped": "in swap", "absent": "only on disk" if disk else "not in RAM",
            "either": "in swap or never written"}
    sums = {name: sum(getattr(one, name) or 0 for one in files)
            for name in ("size", *said) if name != "either"}
    sums["either"] = sum((one.size or 0) - (one.cached or 0) for one in files if one.absent is None)
    parts = [f"{size(sums[name])} {what}" for name, what in said.items() if sums[name]]
    return f" of {size(sums['size'])}: {', '.join(parts) or 'nothing'}"


def say_files(rows: Sequence[FileCache], out: TextIO, shown: Sequence[str]) -> None:
    above = titles("cache")
    grid = [(*(above[name] for name in shown), above["name"])]
    grid += [(*(cell(one, name) for name in shown), printable(one.name)) for one in rows]
    words = {at for at, name in enumerate((*shown, "name")) if name in WORDS}
    say_grid(grid, words, out, room=width(out), yields=len(shown))


def cell(one: FileCache, name: str) -> str:
    if name == "strip":
        return "" if one.cells is None else "".join(letters(coarser(one.cells)))
    value = getattr(one, name)
    if name in ("kind", "mappings"):
        return str(value)
    return kib(value)


def picture(cells: Cells) -> Iterator[str]:
    """Yield the lines of a file's picture: an offset, and the letters from it on."""
    shown = letters(cells)
    at = np.cumsum(cells.size) - cells.size
    digits = len(f"{int(cells.size.sum()):x}")
    for first in range(0, len(shown), ACROSS):
        yield f"0x{int(at[first]):0{digits}x}  {''.join(shown[first:first + ACROSS])}"


def coarser(cells: Cells) -> Cells:
    """Return at most CELLS cells."""
    step = -(-len(cells) // CELLS) or 1
    begins = np.arange(0, len(cells), step)

    def sums(column: I64) -> I64:
        whole: I64 = np.add.reduceat(column, begins) if len(column) else column
        return whole

    return Cells(sums(cells.size), sums(cells.mapped),
                 None if cells.cached is None else sums(cells.cached),
                 None if cells.swapped is None else sums(cells.swapped))


def letters(cells: Cells) -> list[str]:
    """Return a letter for each cell: see LEGEND; ``?`` where the page cache is not known."""
    none = np.zeros(len(cells), np.int64)
    cached = cells.mapped if cells.cached is None else cells.cached
    swapped = none if cells.swapped is None else cells.swapped
    parts = np.stack([cells.mapped, cached - cells.mapped, swapped], axis=1)
    rest = cells.size - parts.sum(axis=1)
    largest = parts.argmax(axis=1)
    capital = np.array(list("MCS"))[largest]
    small = parts.max(axis=1, initial=0) < rest
    found = np.where(small, np.char.lower(capital), capital)
    unknown = "?" if cells.cached is None else "."
    shown: list[str] = np.where(parts.any(axis=1), found, unknown).tolist()
    return shown


def json(
    found: CacheLook, rows: Sequence[FileCache], out: TextIO, *,
    columns: Sequence[str] | None = None,
) -> None:
    """Write all of it, the files in the order of ``rows``."""
    write({
        "process": None if found.who is None else found.who._asdict(),
        "source": {"name": found.source},
        "asked": found.asked,
        "files": [fields("cache", document(one), columns) for one in rows],
        **missing(found.withheld), "stall_ns": found.stall_ns,
    }, out)


def document(one: FileCache) -> dict[str, Any]:
    return {"name": one.name, "inode": one.inode, **{name: getattr(one, name) for name in EVERY},
            "strip": None if one.cells is None else "".join(letters(one.cells)),
            "cells": None if one.cells is None else cells_of(one.cells)}


def cells_of(cells: Cells) -> list[dict[str, int | None]]:
    columns = {name: None if (column := getattr(cells, name)) is None else column.tolist()
               for name in cells.names}
    return [{name: None if column is None else column[at] for name, column in columns.items()}
            for at in range(len(cells))]


def records(
    rows: Sequence[FileCache], columns: Sequence[str] | None = None
) -> Iterator[list[Any]]:
    """Yield the heading and a record for each file."""
    names = ["name", *(EVERY if columns is None else columns)]
    yield names
    for one in rows:
        told = document(one)
        yield [told[name] for name in names]
