"""The address space of a process of a recording: its VMAs, and its pages as runs, each checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pagewalk.model.columns import U8, U64, State, Tells, VMAs
from pagewalk.model.errors import BadRecording
from pagewalk.model.facts import Facts
from pagewalk.model.rules import HAS_ENTRY
from pagewalk.snapshot.part import Part
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.runs import ANEW, Runs
from pagewalk.sources.recorded_target import at_most
from pagewalk.sources.space import Joined, Origin

LABELS = {state.label: state.value for state in State}
PAGE_COLUMNS = ("vma", "state", "start", "size", "unit", "level", "flags", "frame", "step",
                "kflags", "mapcount", "entry")
VMA_COLUMNS = ("start", "end", "perms", "offset", "dev", "inode", "backing", "name", "vm_flags",
               "shmem_swap", "locked")
MOST_PAGES = 1 << 34  # 64 TiB in base pages


@dataclass(eq=False)
class RecordedSpace(Joined):
    """The address space of process ``pid`` of a recording."""

    recording: Recording
    pid: int
    facts: Facts
    tells: Tells
    its_vmas: VMAs

    @property
    def origin(self) -> Origin:
        """Return where and when it was recorded."""
        return Origin(self.recording.meta.host, self.recording.meta.time)

    def runs(self) -> Iterator[Runs]:
        """Yield its pages as runs, by ascending address; raises BadRecording."""
        end = pages = 0
        for part in self.recording.parts("page", PAGE_COLUMNS, self.pid):
            runs = self.checked(part, end)
            entries = HAS_ENTRY[runs.state]
            pages += int((runs.size[entries] // runs.unit[entries]).sum())
            if pages > MOST_PAGES:
                raise BadRecording(part.path, f"process {self.pid} has more pages than any RAM")
            end = int(runs.addr[-1] + runs.size[-1])
            yield runs

    def checked(self, part: Part, end: int) -> Runs:
        # The rows of a part as Runs; each lies in its VMA, behind the one before.
        state = states_of(part)

        def word(name: str) -> U64:
            return part.needed(name).view(np.uint64)

        # Rows without an entry have none of these, whether frames are shown or not.
        none = np.zeros(len(part), np.uint64) if self.tells.frames else None
        frame, kflags, mapcount = (
            none if (column := part.numbers(name)) is None else column.view(np.uint64)
            for name in ("frame", "kflags", "mapcount"))
        if frame is not None and not self.recording.meta.physical:
            anew = (frame > 0) & (state != State.SWAPPED.value)
            frame = np.where(anew, frame | np.uint64(ANEW), frame)
        entry = part.numbers("entry")
        runs = Runs(
            word("start"), word("size"), word("unit"), part.needed("vma"), state,
            part.needed("level").astype(np.uint8), part.needed("flags").astype(np.uint32),
            np.zeros(len(part), np.uint64) if entry is None else entry.view(np.uint64),
            frame, word("step"), kflags, mapcount,
        )
        self.check(runs, part.path, end)
        return runs

    def check(self, runs: Runs, path: str, end: int) -> None:
        """Raise BadRecording if one of ``runs`` is not in its VMA, or not after ``end``."""
        page, vmas = np.uint64(self.facts.page_size), self.its_vmas
        good = (runs.vma >= 0) & (runs.vma < len(vmas))
        row = np.where(good, runs.vma, 0)
        last = runs.addr + runs.size
        good &= (runs.unit > 0) & (runs.size > 0) & (last > runs.addr)
        good &= (runs.unit % page == 0) & (runs.size % np.maximum(runs.unit, page) == 0)
        good &= (runs.addr >= vmas.start[row]) & (last <= vmas.end[row])
        good[1:] &= runs.addr[1:] >= last[:-1]
        if not good.all() or int(runs.addr[0]) < end:
            raise BadRecording(path, f"a page of process {self.pid} is where none can be")


def states_of(part: Part) -> U8:
    """Return the states (u8) of pages; raises BadRecording."""
    codes, names = part.codes("state")
    unknown = [name for name in names if name not in LABELS]
    if unknown:
        raise BadRecording(part.path, f"it has pages in an unknown state, {unknown[0]!r}")
    states: U8 = np.array([LABELS[name] for name in names], np.uint8)[codes]
    return states


def read_vmas(recording: Recording, pid: int) -> tuple[VMAs, dict[str, Any]]:
    """Return the VMAs of a process, and more columns of theirs by name: none if it has no VMAs.

    Raises BadRecording if no process can have such VMAs.
    """
    parts = list(at_most(recording.parts("vma", VMA_COLUMNS, pid)))
    if not parts:
        return no_vmas(), {}
    columns = {name: joined(parts, name) for name in VMA_COLUMNS if name != "name"}
    names = tuple(one or "" for part in parts for one in part.texts("name"))
    lacking = [name for name in ("start", "end", "perms", "offset", "dev", "inode", "backing")
               if columns[name] is None]
    if lacking:
        raise BadRecording(recording.path, f"the VMAs of process {pid} have no {lacking[0]}")
    flags = columns["vm_flags"]
    vmas = VMAs(
        columns["start"].view(np.uint64), columns["end"].view(np.uint64),
        columns["perms"].astype(np.uint8), columns["offset"].view(np.uint64),
        columns["dev"].view(np.uint64), columns["inode"].view(np.uint64),
        columns["backing"].astype(np.uint8), names,
        None if flags is None else flags.view(np.uint64),
    )
    if not are_possible(vmas, recording.facts.page_size):
        raise BadRecording(recording.path, f"the VMAs of process {pid} are out of order")
    zeros = np.zeros(len(vmas), np.int64)
    return vmas, {name: zeros if columns[name] is None else columns[name]
                  for name in ("shmem_swap", "locked")}


def joined(parts: Sequence[Part], name: str) -> Any:
    # A column of all `parts`, i64; None if one of them lacks it.
    pieces = [one for part in parts if (one := part.numbers(name)) is not None]
    return np.concatenate(pieces) if len(pieces) == len(parts) else None


def are_possible(vmas: VMAs, page_size: int) -> bool:
    # Whether they are whole pages, in order, without overlaps, and map what VMAs may map.
    page = np.uint64(page_size)
    ordered = (vmas.start < vmas.end).all() and (vmas.start[1:] >= vmas.end[:-1]).all()
    whole = not ((vmas.start % page).any() or (vmas.end % page).any())
    return bool(ordered and whole and not (vmas.backing > 7).any())


def no_vmas() -> VMAs:
    words, small = np.zeros(0, np.uint64), np.zeros(0, np.uint8)
    return VMAs(words, words, small, words, words, words, small, ())
