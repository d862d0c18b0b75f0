"""Who keeps a file: the processes that have it open or mapped, from the kernel's own tables.

Nothing of /proc is opened or followed: a descriptor of a network file system, or of one in user
space, could keep whoever looks at it waiting for ever.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import PAGE, read_words
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.gather import gather
from pagewalk.kernel.structs.inodes import file_system_names
from pagewalk.kernel.structs.interval_tree import I_MMAP, overlapping
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.tasks import Tasks, read_tasks
from pagewalk.model.columns import I64, U32, U64, Bool

_MOST_DESCRIPTORS = 1 << 22  # of all processes together
_MOST_MAPPINGS = 1 << 18  # of all the files asked for


class Holder(NamedTuple):
    """A process that keeps a file: ``opened`` as a descriptor, ``mapped`` into its memory.

    If it is ``on_host``, /proc does not show it, and ``pid`` is its number on the host.
    """

    pid: int
    comm: str
    opened: bool
    mapped: bool
    on_host: bool = False


class Holders(NamedTuple):
    """``of`` each file asked for its holders, by pid. If it is not ``complete``, there may be more:
    there were more descriptors or mappings than are looked at."""

    of: tuple[tuple[Holder, ...], ...]
    complete: bool


class _Uses(NamedTuple):
    # Pairs: the row of a file asked for, and the address of an mm_struct or a files_struct.
    row: I64
    by: U64
    complete: bool


def holders_of(kernel: Kernel, direct_map: DirectMap, mappings: U64) -> Holders:
    """Return who keeps the files whose page caches are at ``mappings`` (u64[n]).

    A file on an overlay counts for the one below whose pages it shows. Raises OSError, NotInBtf.
    """
    tasks = read_tasks(kernel)
    opened = _descriptors(kernel, np.unique(tasks.files[tasks.files != 0]), mappings)
    mapped = _mappings(kernel, direct_map, mappings)
    openers = _leaders(tasks, opened, tasks.files, len(mappings))
    mappers = _leaders(tasks, mapped, tasks.mm, len(mappings))
    return Holders(
        tuple(_processes(tasks, *both) for both in zip(openers, mappers, strict=True)),
        opened.complete and mapped.complete,
    )


def _leaders(tasks: Tasks, uses: _Uses, column: U64, count: int) -> list[set[int]]:
    # For each file the leaders of the tasks whose `column` is one of its users.
    order = np.argsort(column)
    first, last = (np.searchsorted(column[order], uses.by, side) for side in ("left", "right"))
    many = last - first
    task = order[np.repeat(last - np.cumsum(many), many) + np.arange(many.sum())]
    found: list[set[int]] = [set() for _ in range(count)]
    rows = np.repeat(uses.row, many)
    for row, leader in zip(rows.tolist(), tasks.leader[task].tolist(), strict=True):
        found[row].add(leader)
    return found


def _processes(tasks: Tasks, openers: set[int], mappers: set[int]) -> tuple[Holder, ...]:
    leaders = np.array(sorted(openers | mappers), np.uint64)
    found = []
    for row in np.flatnonzero(np.isin(tasks.address, leaders)).tolist():
        task = int(tasks.address[row])
        found.append(
            Holder(int(tasks.pid[row]), tasks.comm[row], task in openers, task in mappers,
                   not tasks.shown[row])
        )
    return tuple(sorted(found))


# ---- descriptors


def _descriptors(kernel: Kernel, tables: U64, wanted: U64) -> _Uses:
    held, _ = gather(kernel, "files_struct", tables, ("fdt",))
    table, there = gather(kernel, "fdtable", held["fdt"], ("max_fds", "fd"))
    many, array = table.values()
    many[~there] = 0
    fits = np.cumsum(many) <= _MOST_DESCRIPTORS
    file, by = _slots(kernel, array[fits], many[fits], tables[fits])
    every, back = np.unique(file, return_inverse=True)
    row = _files(kernel, every, wanted)[back]
    return _Uses(row[row >= 0], by[row >= 0], bool(fits.all()))


def _slots(kernel: Kernel, array: U64, many: U64, tables: U64) -> tuple[U64, U64]:
    # The struct files in arrays of `many` pointers at `array`, and the table of each.
    pages = (many.astype(np.int64) * 8 + PAGE - 1) // PAGE
    step = np.arange(pages.sum()) - np.repeat(np.cumsum(pages) - pages, pages)
    at = np.repeat(array, pages) + step.astype(np.uint64) * np.uint64(PAGE)
    left = np.repeat(many.astype(np.int64) * 8, pages) - step * PAGE
    size: U32 = np.minimum(left, PAGE).astype(np.uint32)
    of = np.repeat(tables, pages)
    files, by = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for batch in kernel.memory.batches(at, size):
        here = slice(batch.first, batch.first + len(batch.errno))
        words = batch.data.view(np.uint64)
        whose = np.repeat(of[here], size[here] // 8)
        good = np.repeat(batch.errno == 0, size[here] // 8) & (words != 0)
        files.append(words[good])
        by.append(whose[good])
    return np.concatenate(files), np.concatenate(by)


def _files(kernel: Kernel, files: U64, wanted: U64) -> I64:
    # The row in `wanted` of each struct file's page cache, -1 if it is not there.
    found, _ = gather(kernel, "file", files, ("f_mapping", "f_inode", "private_data"))
    row = _rows(found["f_mapping"], wanted)
    left = np.flatnonzero(row < 0)
    left = left[_on_overlay(kernel, found["f_inode"][left])]
    # The file below: up to 6.12 that is private_data, since then the first member of what it points
    # at (struct ovl_file, fs/overlayfs/file.c). What is neither has no page cache that was asked
    # for.
    private = found["private_data"][left]
    inner, errno = read_words(kernel.memory, private)
    for below in (private, np.where(errno == 0, inner, np.uint64(0))):
        file, _ = gather(kernel, "file", below, ("f_mapping",))
        row[left] = np.maximum(row[left], _rows(file["f_mapping"], wanted))
    return row


def _on_overlay(kernel: Kernel, inode: U64) -> Bool:
    found, _ = gather(kernel, "inode", inode, ("i_sb",))
    every, back = np.unique(found["i_sb"], return_inverse=True)
    overlay = [name == "overlay" for name in file_system_names(kernel, every)]
    mask: Bool = np.array(overlay, bool)[back]
    return mask


def _rows(values: U64, wanted: U64) -> I64:
    # The row of each value in `wanted`, -1 if it is not there or could not be read.
    order = np.argsort(wanted)
    at = np.searchsorted(wanted[order], values)
    row = np.append(order, -1)[at]
    same = np.append(wanted, np.uint64(0))[row] == values
    return np.where(same & (values != 0), row, -1)


# ---- mappings


def _mappings(kernel: Kernel, direct_map: DirectMap, wanted: U64) -> _Uses:
    trees, _ = gather(kernel, "address_space", wanted, ("i_mmap.rb_root.rb_node",))
    roots = trees["i_mmap.rb_root.rb_node"]
    found = overlapping(
        kernel, direct_map, I_MMAP, roots, np.zeros_like(roots),
        np.full_like(roots, np.iinfo(np.uint64).max), _MOST_MAPPINGS)
    vma, there = gather(kernel, "vm_area_struct", found.vma, ("vm_mm",))
    return _Uses(found.row[there], vma["vm_mm"][there], found.complete)
