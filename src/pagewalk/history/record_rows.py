"""What a walk of a process is as rows and documents of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from pagewalk.account.table import Table
from pagewalk.history.process_documents import scrubbed_name
from pagewalk.model.columns import State, VMAs, Withheld
from pagewalk.model.errors import PagewalkError
from pagewalk.model.rules import HAS_ENTRY
from pagewalk.proc.cgroups import find_hierarchy, group_of
from pagewalk.proc.chosen import Chosen, real_uid
from pagewalk.proc.counters import Theirs, lazily_freed
from pagewalk.proc.files import read_bytes
from pagewalk.proc.target import parse_stat
from pagewalk.snapshot.runs import ANEW, Runs
from pagewalk.snapshot.schema import AMOUNTS
from pagewalk.snapshot.write import Labels
from pagewalk.sources import Source
from pagewalk.sources.found import Found
from pagewalk.sources.particulars import read_particulars
from pagewalk.system.signs import signs
from pagewalk.walking.walk import Walk

STATES = tuple(state.label for state in State)


def page_rows(pid: int, runs: Runs) -> dict[str, Any]:
    """Return ``runs`` of process ``pid`` as rows of a recording."""
    frame, kflags, mapcount = runs.pfn, runs.kflags, runs.mapcount
    if not HAS_ENTRY[runs.state].any():  # nor a frame, whether frames are shown or not
        frame = kflags = mapcount = None
    if frame is not None:
        frame = frame & np.uint64(ANEW - 1)
    return {
        "pid": np.full(len(runs), pid), "vma": runs.vma, "state": Labels(runs.state, STATES),
        "start": runs.addr, "size": runs.size, "unit": runs.unit, "level": runs.level,
        "flags": runs.flags, "frame": frame, "step": runs.step, "kflags": kflags,
        "mapcount": mapcount, "entry": runs.entry if runs.entry.any() else None,
    }


def vma_rows(pid: int, table: Table, *, scrub: bool) -> dict[str, Any]:
    """Return the VMAs of ``table`` as rows, with their amounts."""
    vmas, outcome, count = table.vmas, table.outcome, len(table.vmas)
    return {
        "pid": np.full(count, pid), "vma": np.arange(count), "start": vmas.start, "end": vmas.end,
        "perms": vmas.perms, "offset": vmas.offset, "dev": vmas.dev, "inode": vmas.inode,
        "backing": vmas.backing, "name": names_of(vmas, scrub=scrub), "vm_flags": vmas.flags,
        "shmem_swap": outcome.shmem_swap, "locked": outcome.locked, "size": vmas.size,
        **{name: table.columns[name] for name in AMOUNTS},
    }


def names_of(vmas: VMAs, *, scrub: bool) -> list[str]:
    return [scrubbed_name(name) if scrub else name for name in vmas.name]


def scrubbed(found: Found) -> Found:
    """Return ``found`` without paths."""
    objects = tuple((one._replace(name=scrubbed_name(one.name)), ends)
                    for one, ends in found.objects)
    return found._replace(who=found.who._replace(exe=None), objects=objects, theirs=tuple(
        one._replace(smaps=None) for one in found.theirs))


def process_rows(group: Sequence[Chosen], found: Table, *, scrub: bool) -> dict[str, Any]:
    """Return the processes of ``group``, which have one address space, as rows."""
    mm, count = group[0].process.pid, len(group)
    cgroups = [cgroup_of(one.process.pid) for one in group]
    columns: dict[str, Any] = {
        "pid": [one.process.pid for one in group], "parent": [one.parent for one in group],
        "mm": [mm] * count, "uid": [real_uid(one.process.pid, one.process.uid) for one in group],
        "started": [started(one.process.pid) for one in group],
        "name": [one.process.name for one in group],
        "program": None if scrub else [
            one.process.script or one.process.argv0 for one in group],
        "command": None if scrub else [one.process.command for one in group],
        "cgroup": None if scrub else cgroups,
    }
    totals = {name: [found.totals[name]] * count for name in ("size", *AMOUNTS)}
    return {**columns, **totals, "page_tables": [found.outcome.page_tables] * count}


def cgroup_of(pid: int) -> str | None:
    with suppress(PagewalkError):
        return group_of(pid, find_hierarchy())
    return None


def started(pid: int) -> int | None:
    """Return when a process was started, nanoseconds since boot; None if it has ended."""
    try:
        return parse_stat(read_bytes(f"/proc/{pid}/stat")).started
    except (OSError, PagewalkError):
        return None


def found_of(
    source: Source, walked: Walk[Any], told: tuple[Withheld, ...], theirs: tuple[Theirs, ...]
) -> Found:
    """Return what a consumed walk found out beside pages."""
    outcome, stall = walked.outcome, walked.outcome.stall
    particulars, _ = read_particulars(source, walked.vmas)
    pointers, go = signs(source, walked.vmas)
    return Found(
        source.name, source.who, walked.tells, told, outcome.vm_swap, outcome.vm_rss,
        tuple(outcome.objects), outcome.all_objects, outcome.counts_hwpoison, outcome.page_tables,
        (stall.longest_ns, stall.where, stall.reads), theirs, pointers, go,
        outcome.shmem_swap is not None, outcome.locked is not None,
        particulars.page_size if source.page_tables is not None else None,
        particulars.thp_eligible if source.page_tables is not None else None, lazily_freed(),
        source.notes,
    )
