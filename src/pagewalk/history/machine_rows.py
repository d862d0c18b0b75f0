"""What RAM and cgroups are used for as rows of a recording: for SQL, differences and reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pagewalk.history.hidden import Hidden, Names
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.proc.files import decode_name
from pagewalk.system.containers import Name
from pagewalk.system.files import CachedFile, FilesReport
from pagewalk.system.group import Group
from pagewalk.system.group_counters import parts_from
from pagewalk.system.group_table import GroupTable
from pagewalk.system.ram import PARTS
from pagewalk.system.slabs import Cache

OF_PART = {part.name: part.group for part in PARTS}
AMOUNTS = ("anon", "file", "shmem", "kernel", "unmapped", "reclaimable")
UNMAPPED = ("file_unmapped", "shmem_unmapped")


class Counted(NamedTuple):
    """A cgroup, what it is and is called, and what the kernel counts of it at one moment."""

    path: str
    inode: int
    name: Name
    version: int
    numbers: GroupNumbers


def columns(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Return ``rows`` as columns, None where a row lacks one of ``names``."""
    listed = list(rows)
    return {name: [row.get(name) for row in listed] for name in names}


def ram_rows(parts: Mapping[str, int], of: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield a row for each part of RAM, or of the charge of the cgroup at path ``of``; bytes."""
    for name, size in parts.items():
        yield {"of_cgroup": of, "state": OF_PART[name], "name": name, "size": size}


def file_rows(
    report: FilesReport, owners: Mapping[int, str], of: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row for each file of ``report``, and one for the rest of each sort.

    ``owners`` are the paths of the cgroups that the words of charges mean.
    """
    rest = {sort: [total.files, *total.amounts] for sort, total in report.totals.items()}
    for file in report.files:
        counted = (1, *file.amounts)
        rest[file.sort] = [None if whole is None or part is None else whole - part
                           for whole, part in zip(rest[file.sort], counted, strict=True)]
        yield {
            "of_cgroup": of, "state": file.sort.name.lower(), "name": named(file), "dev": file.dev,
            "inode": file.inode, "file_system": file.file_system or None, **charged(file, owners),
            **amounts(counted),
        }
    for sort, left in rest.items():
        if left[0]:
            yield {"of_cgroup": of, "state": sort.name.lower(), **amounts(left)}


def amounts(counted: Sequence[int | None]) -> dict[str, int | None]:
    # In the order of FilesTotal: files, then their Amounts.
    return dict(zip(("items", "size", "mapped", "dirty", "active", "huge"), counted, strict=True))


def named(file: CachedFile) -> str | None:
    """Return where a file can be opened, else what is known of its name."""
    return file.inside if file.place is None else decode_name(file.place.path)


def charged(file: CachedFile, owners: Mapping[int, str]) -> dict[str, Any]:
    for one in file.charges or ():
        if one.owner:
            return {"cgroup": owners.get(one.owner), "charged": one.bytes}
    return {}


def cache_rows(caches: Iterable[Cache]) -> Iterator[dict[str, Any]]:
    """Yield a row for each slab cache of the machine."""
    for cache in caches:
        first = next(iter(cache.charges or ()), None)
        yield {
            "name": cache.name, "size": cache.size, "unit": cache.each, "items": cache.most,
            "reclaimable": cache.size * cache.reclaimable,
            **({} if first is None else {"cgroup": first.group, "charged": first.bytes}),
        }


def group_rows(table: GroupTable, names: Mapping[str, Name]) -> Iterator[dict[str, Any]]:
    """Yield a row for each cgroup of ``table``."""
    groups = table.groups
    inode = groups.inode.tolist()
    held = {name: None if (column := getattr(table.amounts, name)) is None else column.tolist()
            for name in AMOUNTS}
    swap = None if groups.swap is None else groups.swap.tolist()
    removed, usage = groups.removed.tolist(), table.amounts.usage.tolist()
    rows = zip(groups.path, groups.parent.tolist(), groups.limit.tolist(), strict=True)
    for row, (path, parent, limit) in enumerate(rows):
        yield {
            "cgroup": path, "inode": inode[row], "parent": None if parent < 0 else inode[parent],
            **called(names.get(path)), "size": usage[row], "allowed": None if limit < 0 else limit,
            **{name: None if column is None else column[row] for name, column in held.items()},
            "swap": None if swap is None else swap[row], "removed": int(removed[row]),
        }


def called(name: Name | None) -> dict[str, str]:
    return {"state": "cgroup"} if name is None else {
        "state": name.kind or "cgroup", "name": name.name}


def one_group(group: Group, name: Name) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of one cgroup that was looked at, by record: group, ram, file and cache."""
    numbers, held = group.numbers[-1], by_group(group.parts)
    objects = sum(one.bytes for one in group.objects)
    unmapped = None if group.charge is None else sum(
        group.parts.get(part, 0) for part in UNMAPPED)
    row = {
        "cgroup": group.path, **called(name), "size": numbers.current, "allowed": numbers.limit,
        "anon": held["processes"], "file": held["cache"], "shmem": held["shared"],
        "kernel": held["kernel"] + objects, "unmapped": unmapped,
        "reclaimable": None if group.headroom is None else group.headroom.at_once,
        "swap": numbers.swap_current, "removed": 0,
    }
    caches = [{"of_cgroup": group.path, "name": one.cache, "size": one.bytes,
               "unit": one.bytes // one.objects if one.objects else None, "items": one.objects,
               "reclaimable": one.bytes * one.reclaimable} for one in group.objects]
    return {
        "group": [row], "ram": list(ram_rows(group.parts, group.path)), "cache": caches,
        "file": [] if group.files is None else list(file_rows(group.files, {}, group.path)),
    }


def counted_group(found: Counted, hidden: Hidden) -> dict[str, Any]:
    """Return the row of one cgroup of which the kernel's counters are all that is known."""
    numbers, version = found.numbers, found.version
    parts = parts_from(numbers, version)
    held: Mapping[str, int] = {} if parts is None else by_group(parts)
    swap = (numbers.stat or {}).get("total_swap") if version == 1 else numbers.swap_current
    names = hidden.of(Names({found.path: found.name})).of
    [(path, name)] = names.items()
    return {
        "cgroup": path, "inode": found.inode, **called(name), "size": numbers.current,
        "allowed": numbers.limit, "anon": held.get("processes"), "file": held.get("cache"),
        "shmem": held.get("shared"), "kernel": held.get("kernel"), "swap": swap, "removed": 0,
    }


def by_group(parts: Mapping[str, int]) -> dict[str, int]:
    """Return the bytes of ``parts`` by the row of ram.GROUPS that each is in."""
    held = dict.fromkeys(OF_PART.values(), 0)
    for name, size in parts.items():
        held[OF_PART[name]] += size
    return held
