"""Record all of RAM and all cgroups: each as its command looks at them, of one scan of RAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pagewalk.history import machine_rows as rows
from pagewalk.history.hidden import Hidden, Names
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import NotPermitted, PagewalkError
from pagewalk.model.facts import Facts
from pagewalk.snapshot.documents import to_text
from pagewalk.snapshot.schema import RECORDS
from pagewalk.snapshot.write import Writer
from pagewalk.sources.ram import open_ram
from pagewalk.system.group_table import GroupTable
from pagewalk.system.kernel_memory import KernelMemory
from pagewalk.system.look import Ram
from pagewalk.system.machine import FilesLook, Machine, MapLook
from pagewalk.system.one_scan import OneScan

# The documents about the machine. A map is nothing but physical addresses.
RAM, FILES, SLAB, MAP, CGROUPS = "ram", "files", "slab", "map", "cgroups"
NAMES, MISSING = "names", "missing"
KINDS: dict[str, Any] = {
    RAM: Ram, FILES: FilesLook, SLAB: KernelMemory, MAP: MapLook, CGROUPS: GroupTable, NAMES: Names,
}
# What of the machine each of them is, in words.
WORDS = {
    RAM: "what RAM is used for", FILES: "the page cache by file",
    SLAB: "the kernel's memory by name", MAP: "a map of RAM", CGROUPS: "all cgroups",
}


class Missing(NamedTuple):
    """Why a recording lacks a document, by its name."""

    why: dict[str, str]


class Added(NamedTuple):
    """What was recorded beside processes, in words, and what was withheld; the kernel's facts."""

    words: tuple[str, ...]
    withheld: tuple[Withheld, ...]
    facts: Facts


class Looks(NamedTuple):
    """What was seen of a machine, by the name of its document, and why the rest was not."""

    found: dict[str, Any]
    missing: dict[str, str]


def add_ram(writer: Writer, source: str, hidden: Hidden, *, physical: bool) -> Added:
    """Record all of RAM, its files, the kernel's memory and all cgroups, as ``source`` reads them.

    What cannot be looked at is withheld. Raises what open_ram raises.
    """
    machine = OneScan(open_ram(source), physical=physical)
    looks = look_at(machine, physical=physical)
    kept = add_looks(writer, looks, hidden)
    withheld = [Withheld(WORDS[name], why, partial=True) for name, why in looks.missing.items()]
    for one in looks.found.values():
        withheld += getattr(one, "withheld", ())
    return Added(words_of(kept), tuple(withheld), machine.facts)


def look_at(machine: Machine, *, physical: bool) -> Looks:
    """Look at a machine in each way that has a document; at its map only if ``physical``."""
    looks: dict[str, Callable[[], Any]] = {
        RAM: machine.ram, FILES: machine.files, SLAB: machine.slab, MAP: machine.map,
        CGROUPS: lambda: all_cgroups(machine),
    }
    if not physical:
        del looks[MAP]
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, look in looks.items():
        try:
            found[name] = look()
        except (OSError, PagewalkError) as error:
            missing[name] = str(error)
    found[NAMES] = Names(machine.names(paths_of(found)))
    return Looks(found, missing)


def all_cgroups(machine: Machine) -> GroupTable:
    """Look at all cgroups, those that were removed too if frames are visible."""
    try:
        return machine.cgroups(dying=True)
    except NotPermitted:
        return machine.cgroups(dying=False)


def add_looks(writer: Writer, looks: Looks, hidden: Hidden) -> dict[str, Any]:
    """Record what was seen, without what is ``hidden``; return that."""
    kept = {name: hidden.of(one) for name, one in looks.found.items()}
    for name, one in {**kept, MISSING: Missing(looks.missing)}.items():
        add_document(writer, name, one)
    add_rows(writer, rows_of(kept))
    return kept


def add_document(writer: Writer, name: str, value: Any) -> None:
    """Record ``value`` as the document ``name`` about the machine."""
    writer.add("document", {"name": [name], "text": [to_text(value)]})


def add_rows(writer: Writer, found: dict[str, list[dict[str, Any]]]) -> None:
    """Record rows by kind."""
    for record, listed in found.items():
        if listed:
            writer.add(record, rows.columns(listed, RECORDS[record]))


def paths_of(found: dict[str, Any]) -> set[str]:
    """Return the paths of all cgroups in documents."""
    paths: set[str] = set()
    if FILES in found:
        paths |= set(found[FILES].owners.values())
    if SLAB in found:
        paths |= {one.group for cache in found[SLAB].slabs.caches for one in cache.charges or ()
                  if one.group}
    if CGROUPS in found:
        paths |= set(found[CGROUPS].groups.path)
    return paths


def rows_of(kept: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of documents, by kind."""
    ram, files = kept.get(RAM), kept.get(FILES)
    slab, groups = kept.get(SLAB), kept.get(CGROUPS)
    return {
        "ram": [] if ram is None else list(rows.ram_rows(ram.parts or {})),
        "file": [] if files is None else list(rows.file_rows(*files)),
        "cache": [] if slab is None else list(rows.cache_rows(slab.slabs.caches)),
        "group": [] if groups is None else list(rows.group_rows(groups, kept[NAMES].of)),
    }


def words_of(kept: dict[str, Any]) -> tuple[str, ...]:
    words = ["all of RAM"] if RAM in kept else []
    if CGROUPS in kept:
        words.append(f"{len(kept[CGROUPS].groups)} cgroups")
    return tuple(words)
