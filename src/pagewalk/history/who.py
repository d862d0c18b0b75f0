"""Who of the processes in a recording maps a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import numpy as np

from pagewalk.model.bits import kpf
from pagewalk.model.columns import Pages, VMAs
from pagewalk.model.errors import BadRecording, BadRequest, NotRecorded
from pagewalk.model.rules import IS_PRESENT
from pagewalk.snapshot.damage import damage
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.runs import ANEW
from pagewalk.sources.recorded import RecordedSource, open_recorded
from pagewalk.sources.recorded_space import read_vmas, states_of
from pagewalk.system.mappers import RECORDING, Frame, Mapper, Who, mapper
from pagewalk.system.members import Tried
from pagewalk.translate.address import holder_of, locate
from pagewalk.walking.walk import walk

ZERO_PAGE = kpf("zero_page")


class Space(NamedTuple):
    """An address space of a recording: the ``pids`` that run in it, and the name of the first."""

    pids: tuple[int, ...]
    name: str


def who_in_recording(word: str, address: str) -> Who | None:
    """Return who maps the page at ``address`` of TARGET ``word``; None if it names no recording.

    Only processes of the same recording are seen. Raises BadRecording, BadTarget, BadRequest if
    no page is there, NotRecorded if its frame was hidden.
    """
    source = open_recorded(word)
    if source is None:
        return None
    recording, page = source.space.recording, source.space.facts.page_size
    with closing(source), damage(recording.path):
        frame = frame_behind(source, address)
        assert frame.pfn is not None
        mappers = tuple(mappers_of(recording, frame.pfn, page))
    asked = f"frame {frame.pfn:#x}"
    if not recording.meta.physical:
        number = frame.pfn & ANEW - 1
        asked, frame = f"frame {number} of the recording", frame._replace(pfn=None)
    return Who(asked, frame, mappers, Tried(source.name, (), (), 0, ()), RECORDING)


def frame_behind(source: RecordedSource, address: str) -> Frame:
    """Return the frame behind ``address`` of a recorded process."""
    vmas, page, pid = source.vmas(), source.space.facts.page_size, source.who.pid
    addr = locate(address, vmas)
    start = addr - addr % page
    row = holder_of(vmas, addr)
    if row is None or vmas.gate[row]:
        raise BadRequest(f"process {pid} has no memory of its own at {addr:#x}")
    for batch in walk(source, Pages, ranges=np.array([[start, start + page]], np.uint64)):
        for at in np.flatnonzero(IS_PRESENT[batch.state]).tolist():
            if batch.pfn is None or batch.kflags is None or batch.mapcount is None:
                raise NotRecorded(source.space.recording.path, "page frames", "they were hidden"
                                  " from whoever made it", "record it as root")
            if int(batch.kflags[at]) & ZERO_PAGE:
                raise BadRequest(f"the page at {addr:#x} is the zero page: it is mapped wherever"
                                 " memory was read and never written")
            return Frame(int(batch.pfn[at]), int(batch.kflags[at]), int(batch.mapcount[at]), None,
                         None)
    raise BadRequest(f"no page was in RAM at {addr:#x} of process {pid}")


def mappers_of(recording: Recording, pfn: int, page: int) -> Iterator[Mapper]:
    """Yield each mapping of frame ``pfn`` that is recorded."""
    spaces, vmas = spaces_of(recording), dict[int, VMAs]()
    number = pfn & ANEW - 1
    for part in recording.parts("page", ("pid", "vma", "state", "start", "size", "frame")):
        frame = part.numbers("frame")
        if frame is None:
            continue
        size = part.needed("size")
        first = IS_PRESENT[states_of(part)] & (frame <= number) & (number - frame < size // page)
        pids, rows, starts = (part.needed(name) for name in ("pid", "vma", "start"))
        for at in np.flatnonzero(first).tolist():
            pid, row = int(pids[at]), int(rows[at])
            if pid not in spaces:
                continue
            if pid not in vmas:
                vmas[pid] = read_vmas(recording, pid)[0]
            if not 0 <= row < len(vmas[pid]):
                raise BadRecording(recording.path, f"a page of process {pid} is in no VMA")
            addr = (int(starts[at]) + (number - int(frame[at])) * page) % (1 << 64)
            yield mapper(spaces[pid].pids, spaces[pid].name, vmas[pid], row, addr, page)


def spaces_of(recording: Recording) -> dict[int, Space]:
    """Return the address spaces of a recording by the lowest pid that runs in each."""
    names: dict[int, str] = {}
    pids: dict[int, list[int]] = {}
    for part in recording.parts("process", ("pid", "mm", "name")):
        rows = zip(part.needed("pid").tolist(), part.needed("mm").tolist(), part.texts("name"),
                   strict=True)
        for pid, mm, name in rows:
            pids.setdefault(mm, []).append(pid)
            names[pid] = name or ""
    return {mm: Space(tuple(sorted(together)), names.get(mm, ""))
            for mm, together in pids.items()}
