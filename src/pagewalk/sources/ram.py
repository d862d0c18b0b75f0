"""All of RAM, opened one way: its frames in runs, and the kernel's own totals beside them.

From struct pages, read by ebpf, kcore or drgn; or, for those who may not see frames, only what the
kernel counts.
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
from pagewalk.proc.kernel import has_generations, read_facts
from pagewalk.proc.totals import Totals, read_totals
from pagewalk.sources.readers import running

# What `auto` tries, best first.
AUTO = ("ebpf", "kcore")
READERS = ("ebpf", "kcore", "drgn")
COUNTERS = "counters"
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
        if self.ranges is None or self.running is None:
            raise NotPermitted("the frames of RAM", "not visible to you", "run as root")
        return _together(scan_frames(self.running, self.ranges))

    def totals(self, *, refresh: bool = False) -> Totals:
        """Return the kernel's own totals; see proc.totals.read_totals."""
        return read_totals(refresh=refresh)

    def generations(self) -> bool:
        """Return whether LRU lists are sorted by generation; see proc.kernel.has_generations."""
        return has_generations()


def open_ram(source: str = "auto") -> RamSource:
    """Return all of RAM opened by ``source``, or the best way that works, for ``auto``.

    By auto, those who may not see frames get what the kernel counts. Raises SourceUnavailable,
    NotPermitted, BadRequest, BadText.
    """
    if source != "auto":
        return _open(source)
    notes: tuple[Withheld, ...] = ()
    for name in AUTO:
        try:
            return _with_notes(_open(name), notes)
        except (SourceUnavailable, NotPermitted) as error:
            notes = notes or (Withheld("the best source", str(error)),)
    hidden = Withheld("what each frame is used for", notes[0].why, partial=True)
    return RamSource(COUNTERS, read_facts(), None, None, (hidden,))


def _open(name: str) -> RamSource:
    if name not in READERS:
        known = ", ".join(("auto", *READERS))
        raise BadRequest(f"no source is called '{name}'; there are: {known}")
    return RamSource(name, read_facts(), running(name), read_ranges())


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
