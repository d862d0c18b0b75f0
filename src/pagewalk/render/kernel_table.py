"""Kernel memory by name: the screen of ``ram --slab`` and its document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from pagewalk.kernel.structs.vmap_areas import Use
from pagewalk.render import slab_table
from pagewalk.render.amounts import kib, many
from pagewalk.render.document import missing, write
from pagewalk.render.file_table import UNKNOWN, Known
from pagewalk.render.terminal import following, printable, say_grid, say_missing, width
from pagewalk.system.kernel_memory import KernelMemory
from pagewalk.system.slabs import Cache

NAMED = 8  # callers, maps and buffers


def text(
    found: KernelMemory, shown: Sequence[Cache], out: TextIO, *, known: Known = UNKNOWN,
    columns: Sequence[str] | None = None,
) -> None:
    """Write the objects by cache, then what else of kernel memory has a name."""
    slab_table.text(found.slabs, shown, out, known=known, columns=columns)
    for rows in (_callers(found), _maps(found), _buffers(found)):
        heading, *lines = rows
        if lines:
            print(file=out)
            left = set(range(1, len(heading)))
            rest = lines[NAMED:]
            grid = [heading, *([kib(amount), *words] for amount, *words in lines[:NAMED])]
            if rest:
                others = [many(len(rest), "other")]
                grid.append([kib(sum(int(one[0]) for one in rest)), *others,
                             *[""] * (len(heading) - 2)])
            say_grid(grid, left, out, room=width(out), yields=1)
    say_missing(found.withheld, out)
    following(out, "ram", "ram --files", "cgroups --sort kernel")


def _callers(found: KernelMemory) -> Iterator[list[Any]]:
    yield ["SIZE", "MAPPED BY THE KERNEL FOR", "USE", "AREAS"]
    for one in callers(found) or ():
        yield [one["bytes"], printable(one["caller"] or "not told"), one["use"],
               str(one["areas"])]


def _maps(found: KernelMemory) -> Iterator[list[Any]]:
    yield ["SIZE", "BPF MAP", "ID"]
    for one in found.maps or ():
        if one.memlock is not None:
            yield [one.memlock, printable(one.name) or "without a name", str(one.id)]


def _buffers(found: KernelMemory) -> Iterator[list[Any]]:
    yield ["SIZE", "DMA BUFFER OF", "NAME", "INODE"]
    for one in found.buffers or ():
        yield [one.size, printable(one.exporter), printable(one.name), str(one.inode)]


def callers(found: KernelMemory) -> list[dict[str, Any]] | None:
    """Return who asked for memory that the kernel maps, the largest first; without devices'."""
    asked = found.vmalloc
    if asked is None:
        return None
    rows = zip(asked.use.tolist(), asked.areas.tolist(), asked.pages.tolist(), asked.caller,
               strict=True)
    return [{"caller": caller, "use": Use(use).label, "areas": areas, "bytes": pages * found.page}
            for use, areas, pages, caller in rows if use != Use.IOREMAP]


def document(
    found: KernelMemory, shown: Sequence[Cache], known: Known = UNKNOWN,
    columns: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the keys of the JSON document: amounts in bytes, null where withheld."""
    maps, buffers = found.maps, found.buffers
    return {
        **slab_table.document(found.slabs, shown, known, columns),
        "vmalloc": callers(found),
        "bpf_maps": None if maps is None else [
            {"id": one.id, "name": one.name, "kind": one.kind, "bytes": one.memlock}
            for one in maps
        ],
        "dma_buffers": None if buffers is None else [
            {"inode": one.inode, "exporter": one.exporter, "name": one.name, "bytes": one.size}
            for one in buffers
        ],
        **missing(found.withheld),
    }  # fmt: skip


def json(
    found: KernelMemory, shown: Sequence[Cache], out: TextIO, *, known: Known = UNKNOWN,
    columns: Sequence[str] | None = None,
) -> None:
    """Write all of it, with the ``columns`` of each cache."""
    write(document(found, shown, known, columns), out)
