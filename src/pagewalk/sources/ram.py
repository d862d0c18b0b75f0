"""All of RAM, opened one way: its frames in runs, and the kernel's own totals beside them.

From struct pages, read by ebpf, kcore or drgn; from what /proc shows of each frame; or, for those
who may not see frames, only what the kernel counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.scan import scan_frames
from pagewalk.model.columns import Withheld, join
from pagewalk.model.errors import BadRequest, NotPermitted, SourceUnavailable
from pagewalk.model.facts import Facts
from pagewalk.model.frames import Frames
from pagewalk.proc.iomem import read_ranges
from pagewalk.proc.kernel import has_generations, has_root_pairs, possible_cpus, read_facts
from pagewalk.proc.kpage_scan import scan_kpage
from pagewalk.proc.totals import Totals, read_totals
from pagewalk.sources.readers import running

# What `auto` tries, best first.
PROCFS = "procfs"
AUTO = ("ebpf", "kcore", PROCFS)
READERS = ("ebpf", "kcore", "drgn", PROCFS)
COUNTERS = "counters"
# What procfs does not tell of frames.
NOT_TOLD = tuple(Withheld(what, f"the source procfs does not tell {why}", partial=True)
                 for what, why in (
    ("what could be reclaimed", "which slabs can shrink, and what is free on lists of CPUs"),
    ("some kinds of kernel memory", "free pages on lists of CPUs, large kmalloc, stacks, vmalloc,"
     " per-CPU memory, and pages of files on no LRU list from other kernel memory, nor struct pages"
     " from what else was kept at boot"),
    ("the cache of block devices, huge pages", "them from other files and other anonymous memory;"
     " nor which hugetlb pages are idle"),
))  # fmt: skip
# Chunks of RAM become one batch until it has so many runs: what is done once a batch would take
# longer than the few thousand runs of one chunk do. Even so a batch is at most 12 MB.
_RUNS, _CHUNKS = 1 << 15, 16


class RamSource(NamedTuple):
    """What all of RAM is read from.

    ``running`` is the open kernel, None without kernel memory; ``ranges`` are those of RAM as
    [first, last) PFNs, None where frames may not be seen.
    """

    name: str
    facts: Facts
    running: RunningKernel | None
    ranges: list[tuple[int, int]] | None
    notes: tuple[Withheld, ...] = ()

    def frames(self) -> Iterator[Frames]:
        """Yield all frames of RAM in runs, by ascending frame; see model.frames.Frames.

        Raises SourceUnavailable, NotPermitted.
        """
        if self.ranges is None:
            raise NotPermitted("the frames of RAM", "not visible to you", "run as root")
        if self.running is None:
            return _together(scan_kpage(self.ranges))
        return _together(scan_frames(self.running, self.ranges))

    def totals(self, *, refresh: bool = False) -> Totals:
        """Return the kernel's own totals; see proc.totals.read_totals."""
        return read_totals(refresh=refresh)

    def root_pairs(self) -> bool:
        """Return whether page-table roots may be two pages; see kernel.has_root_pairs."""
        return has_root_pairs()

    def generations(self) -> bool:
        """Return whether LRU lists are sorted by generation; see proc.kernel.has_generations."""
        return has_generations()

    def possible_cpus(self) -> int | None:
        """Return how many CPUs there can ever be; see proc.kernel.possible_cpus."""
        return possible_cpus()


def open_ram(source: str = "auto", *, kernel: bool = False) -> RamSource:
    """Return all of RAM opened by ``source``, or the best way that works, for ``auto``.

    With ``kernel`` only ways that read kernel memory, which tells what frames belong to. By auto,
    those for whom none works get what the kernel counts. Raises SourceUnavailable, NotPermitted,
    BadRequest, BadText.
    """
    if kernel and source == PROCFS:
        raise SourceUnavailable(
            PROCFS, "it cannot read kernel memory, which alone tells what frames belong to",
            "leave --source out, or choose ebpf, kcore or drgn",
        )  # fmt: skip
    if source != "auto":
        return _open(source)
    notes: tuple[Withheld, ...] = ()
    for name in AUTO:
        if kernel and name == PROCFS:
            continue
        try:
            return _with_notes(_open(name), notes)
        except (SourceUnavailable, NotPermitted) as error:
            notes = notes or (Withheld("the best source", str(error)),)
    return open_counters(Withheld("what each frame is used for", notes[0].why, partial=True))


def open_counters(*why: Withheld) -> RamSource:
    """Return what the kernel counts of RAM, and ``why`` frames are not looked at."""
    return RamSource(COUNTERS, read_facts(), None, None, why)


def _open(name: str) -> RamSource:
    if name not in READERS:
        known = ", ".join(("auto", *READERS))
        raise BadRequest(f"no source is called '{name}'; there are: {known}")
    if name == PROCFS:
        return _open_procfs()
    return RamSource(name, read_facts(), running(name), read_ranges())


def _open_procfs() -> RamSource:
    ranges = read_ranges()
    # Reads one frame: if that is refused, another source can be tried still.
    next(scan_kpage([(ranges[0][0], ranges[0][0] + 1)]))
    return RamSource(PROCFS, read_facts(), None, ranges, NOT_TOLD)


def _with_notes(opened: RamSource, notes: tuple[Withheld, ...]) -> RamSource:
    return opened._replace(notes=(*notes, *opened.notes))


def _together(batches: Iterator[Frames]) -> Iterator[Frames]:
    waiting: list[Frames] = []
    for frames in batches:
        waiting.append(frames)
        if len(waiting) == _CHUNKS or sum(map(len, waiting)) >= _RUNS:
            yield join(waiting)
            waiting = []
    if waiting:
        yield join(waiting)
