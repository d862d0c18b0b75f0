"""Walk processes that map, unmap, fork and exec nonstop; count refusals and impossible results.

``python -m tests.churn 25000`` walks that many times by each source, as root, and prints figures.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from math import inf
from pathlib import Path
from time import monotonic

import numpy as np

import pagewalk
from pagewalk.account.table import Table
from pagewalk.model.columns import Flag, Pages
from pagewalk.model.errors import NoAddressSpace, PagewalkError, ProcessGone
from pagewalk.walking.walk import Walk
from tests.machine import fewer
from tests.targets import start

# Each target's number of mapping threads, forking threads and VMAs that stay.
STORMS = ((2, 1, fewer(3000)), (3, 2, 100), (1, 3, 10))
PARTS = ("anon", "file", "shmem", "zero", "special", "hugetlb", "device")
# The fewest walks of each target, however little time a busy machine leaves.
LEAST = fewer(12)
# How a walk is consumed: summed, page by page, or counted.
WAYS = ("sums", "pages", "counts")


@dataclass
class Tally:
    """The outcome of many walks: how many, of processes that had ended, partial; why others were
    refused, and impossible results."""

    walks: int = 0
    ended: int = 0
    partial: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    impossible: Counter[str] = field(default_factory=Counter)


def walk_storms(source: str, seconds: float) -> Tally:
    """Walk each target and its children in turn, for ``seconds`` in all, LEAST times at least."""
    tally = Tally()
    for arguments in STORMS:
        with start("storm", *arguments) as running:
            deadline = monotonic() + seconds / len(STORMS)
            walk_family(running.pid, source, tally, until=deadline)
            walk_family(running.pid, source, tally, upto=LEAST * (STORMS.index(arguments) + 1))
    return tally


def walk_family(
    pid: int, source: str, tally: Tally, *, until: float = inf, upto: float = inf
) -> None:
    """Walk ``pid``, which stays, and its children, which do not, until a time or a count."""
    for way in cycle(WAYS):
        for member in (pid, *children(pid)):
            if monotonic() > until or tally.walks >= upto:
                return
            walk_once(member, source, way, tally, ends=member != pid)


def walk_once(pid: int, source: str, way: str, tally: Tally, *, ends: bool) -> None:
    """Walk ``pid`` and add the outcome to ``tally``; with ``ends`` it may exit or exec."""
    tally.walks += 1
    try:
        if way == "pages":
            walked = pagewalk.walk(pid, source=source)
            outcome, wrong = walked.outcome, list(wrong_pages(walked))
        else:
            table = pagewalk.table(pid, source=source, frames=way != "counts")
            outcome, wrong = table.outcome, list(wrong_amounts(table))
    except (ProcessGone, NoAddressSpace) as err:
        tally.ended += ends
        tally.refused.update([] if ends else [plain(err)])
    except (PagewalkError, OSError) as err:
        tally.refused[plain(err)] += 1
    else:
        tally.partial += bool(outcome.partial)
        tally.impossible.update(wrong)


def plain(err: Exception) -> str:
    # Without numbers, so that similar errors are counted together.
    return f"{type(err).__name__}: {re.sub(r'[0-9]+', 'N', str(err))}"


def children(pid: int) -> list[int]:
    """Return the pids of the processes whose parent is ``pid``."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
                if int(stat[1]) == pid:
                    found.append(int(entry))
    return found


def wrong_amounts(table: Table) -> Iterator[str]:
    """Yield what is impossible about the amounts of a walk."""
    columns, vmas = table.columns, table.vmas
    if (vmas.start >= vmas.end).any() or (vmas.end[:-1] > vmas.start[1:]).any():
        yield "VMAs that are empty or overlap"
    for name, column in columns.items():
        if column is not None and (column < 0).any():
            yield f"{name} is negative"
    size, present, absent = (columns[name] for name in ("size", "present", "not_present"))
    assert size is not None and present is not None and absent is not None
    unmapped = columns["not_mapped"]
    if (present + absent + (0 if unmapped is None else unmapped) != size).any():
        yield "present + not_present + not_mapped is not size"
    parts = [column for name in PARTS if (column := columns[name]) is not None]
    if len(parts) == len(PARTS) and (sum(parts) != present).any():
        yield "present is not the sum of its kinds"
    for less, more in (("uss", "pss"), ("pss", "rss"), ("rss", "size")):
        first, second = columns[less], columns[more]
        if first is not None and second is not None and (first > second).any():
            yield f"{less} is more than {more}"


def wrong_pages(walked: Walk[Pages]) -> Iterator[str]:
    """Yield what is impossible about the pages of a walk."""
    told = np.zeros(len(walked.vmas), np.uint64)
    for batch in walked:
        np.add.at(told, batch.vma, batch.size)
        start, end = walked.vmas.start[batch.vma], walked.vmas.end[batch.vma]
        if ((batch.addr < start) | (batch.addr + batch.size > end)).any():
            yield "a page outside its VMA"
        if has_impossible_frame(batch):
            yield "an impossible frame"
    if (told > walked.vmas.size).any():
        yield "more pages than a VMA has"


def has_impossible_frame(pages: Pages) -> bool:
    present = pages.flags & np.uint32(Flag.PRESENT | Flag.SPECIAL) == np.uint32(Flag.PRESENT)
    return pages.pfn is not None and bool((pages.pfn[present] > highest_frame()).any())


@cache
def highest_frame() -> int:
    """Return the last frame of RAM; only root sees the addresses."""
    lines = Path("/proc/iomem").read_text().splitlines()
    ram = [line.split()[0] for line in lines if line.endswith(" : System RAM")]
    return max(int(span.split("-")[1], 16) for span in ram) >> 12


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for source in sys.argv[2:] or ("ebpf", "procfs"):
        tally, begun = Tally(), monotonic()
        for arguments in STORMS:
            upto = tally.walks + wanted // len(STORMS)
            with start("storm", *arguments) as running:
                walk_family(running.pid, source, tally, upto=upto)
        print(f"{source}: {tally.walks} walks in {monotonic() - begun:.0f} s, {tally.ended} of"
              f" processes that had ended, {tally.partial} partial;"
              f" {tally.refused.total()} refused, {tally.impossible.total()} impossible")
        for why, count in (tally.refused + tally.impossible).most_common():
            print(f"  {count} {why}")


if __name__ == "__main__":
    main()
