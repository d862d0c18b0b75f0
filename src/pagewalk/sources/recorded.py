"""A process of a recording: the address space that was walked, and what else was found out.

It answers what the live process answered, on any machine and without any rights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pagewalk.model.columns import U8, U64, State, Tells, VMAs, Withheld
from pagewalk.model.errors import BadRecording, BadTarget, in_a_line
from pagewalk.model.facts import Facts
from pagewalk.model.rules import HAS_ENTRY
from pagewalk.proc.counters import Theirs
from pagewalk.proc.smaps import LastSmaps
from pagewalk.proc.stall import Stall
from pagewalk.snapshot.documents import Malformed, from_text
from pagewalk.snapshot.part import Part
from pagewalk.snapshot.places import is_recording
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.runs import ANEW, Runs
from pagewalk.sources.found import Found
from pagewalk.sources.outcome import Outcome, Who
from pagewalk.sources.space import Joined, Origin

LABELS = {state.label: state.value for state in State}
PAGE_COLUMNS = ("vma", "state", "start", "size", "unit", "level", "flags", "frame", "step",
                "kflags", "mapcount", "entry")
VMA_COLUMNS = ("start", "end", "perms", "offset", "dev", "inode", "backing", "name", "vm_flags",
               "shmem_swap", "locked")
PROCESS = "process"  # the document about one
# 64 TiB in base pages; as many processes as a kernel can have (PID_MAX_LIMIT), and as many VMAs.
MOST_PAGES, MOST_PROCESSES = 1 << 34, 1 << 22
NUMBERED_ANEW = Withheld(
    "phys and pfn", "the recording was made without --physical: its frames are numbered anew")


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


@dataclass(eq=False)
class RecordedSource:
    """A process of a recording; see sources.Source."""

    name: str
    found: Found
    space: RecordedSpace
    extra: dict[str, Any]
    notes: tuple[Withheld, ...] = ()
    live: None = None
    page_tables: None = None
    pagemap: None = None
    asked: int = field(default=0, repr=False)
    shows_frames: bool = True  # in what is made of its walk

    @property
    def who(self) -> Who:
        """Return whose address space it was."""
        return self.found.who

    @property
    def recorded(self) -> Found:
        """Return what was found out beside its pages."""
        return self.found

    def vmas(self) -> VMAs:
        """Return the VMAs."""
        return self.space.its_vmas

    def outcome(self) -> Outcome:
        """Return what the walk found out."""
        found = self.found
        longest, where, reads = found.stall
        true = self.space.recording.meta.physical or not found.tells.frames
        anew = [] if true or not self.shows_frames else [NUMBERED_ANEW]
        return Outcome(
            Stall(longest_ns=longest, where=where, reads=reads), [*found.withheld, *anew],
            shmem_swap=self.extra["shmem_swap"], locked=self.extra["locked"],
            vm_swap=found.vm_swap, vm_rss=found.vm_rss, objects=list(found.objects),
            all_objects=found.all_objects, counts_hwpoison=found.counts_hwpoison,
            page_tables=found.page_tables,
        )

    def theirs(self, *files: str, last: LastSmaps | None = None) -> Theirs:
        """Return the kernel's numbers: those from before the walk, and then those from after it."""
        del last
        found = self.found.theirs[min(self.asked, len(self.found.theirs) - 1)]
        self.asked += 1
        missing = [f"{name}: it was not recorded; record it with --smaps" for name, table in (
            ("smaps", found.smaps), ("smaps_rollup", found.rollup))
            if name in files and table is None]
        return replace_unread(found, files, tuple(missing))

    def document(self, name: str, kind: Any) -> Any:
        """Return what the document ``name`` of this process holds, of type ``kind``, None without.

        Raises BadRecording.
        """
        return find_document(self.space.recording, self.space.pid, name, kind)

    def check_columns(self, columns: Iterable[Any]) -> None:
        """Raise BadRecording unless each column, or None, has a row for each VMA."""
        if any(column is not None and column.shape != (len(self.vmas()),) for column in columns):
            raise BadRecording(self.space.recording.path,
                               f"process {self.space.pid} has VMAs of two numbers")

    def close(self) -> None:
        """Close the recording."""
        self.space.recording.close()


def replace_unread(found: Theirs, files: tuple[str, ...], missing: tuple[str, ...]) -> Theirs:
    """Return ``found`` with only the tables that were asked for."""
    return found._replace(
        smaps=found.smaps if "smaps" in files else None,
        rollup=found.rollup if "smaps_rollup" in files else None,
        pmap=found.pmap if "smaps" in files else None,
        not_read=(*found.not_read, *missing),
    )


class Recorded(NamedTuple):
    """A process of a recording: the lowest pid that has the address space, and its names."""

    pid: int
    name: str
    program: str
    command: str


def named_recording(word: str) -> tuple[str, str] | None:
    """Return the file that TARGET ``word`` names, and which process of it, empty for the only one.

    ``FILE`` or ``FILE:PROCESS``. None if it names no recording.
    """
    if is_recording(word):
        return word, ""
    path, colon, process = word.rpartition(":")
    if colon and process and is_recording(path):
        return path, process
    return None


def open_recorded(word: str) -> RecordedSource | None:
    """Return the process that TARGET ``word`` names in a recording; None if it names none.

    Raises BadRecording, BadTarget with the candidates, PackageMissing.
    """
    named = named_recording(word)
    if named is None:
        return None
    path, process = named
    recording = Recording(path)
    try:
        return open_in(recording, one_of(recording, process))
    except BaseException:
        recording.close()
        raise


def processes_of(recording: Recording) -> list[Recorded]:
    """Return the processes of a recording, by pid; one for each address space."""
    found: dict[int, Recorded] = {}
    for part in at_most(recording.parts("process", ("pid", "mm", "name", "program", "command"))):
        rows = zip(part.needed("pid").tolist(), part.needed("mm").tolist(), part.texts("name"),
                   part.texts("program"), part.texts("command"), strict=True)
        for pid, mm, name, program, command in rows:
            if pid == mm:
                found[pid] = Recorded(pid, name or "", program or "", command or "")
    return [found[pid] for pid in sorted(found)]


def at_most(parts: Iterator[Part]) -> Iterator[Part]:
    """Yield ``parts``; raises BadRecording when there are more rows than of any process."""
    rows = 0
    for part in parts:
        rows += len(part)
        if rows > MOST_PROCESSES:
            raise BadRecording(part.path, f"it has more than {MOST_PROCESSES} processes or VMAs")
        yield part


def one_of(recording: Recording, process: str) -> int:
    """Return the pid of the process called ``process``, or of the only one; raises BadTarget."""
    every = processes_of(recording)
    meant = every if not process else [
        one for one in every
        if process in (str(one.pid), one.name, one.program, one.program.rpartition("/")[2])]
    if len(meant) == 1:
        return meant[0].pid
    path = in_a_line(recording.path)
    if not every:
        raise no_process(recording)
    listed = "".join(f"\n  {one.pid:>8}  {one.program or one.name}" for one in every[:20])
    more = f"\n  ... and {len(every) - 20} more" if len(every) > 20 else ""
    if process and not meant:
        raise BadTarget(f"no process of {path} is called '{in_a_line(process)}'; it has:{listed}"
                        f"{more}")
    raise BadTarget(f"{path} has {len(meant or every)} processes"
                    f"{f' called {in_a_line(process)}' if process else ''}; name one as FILE:PID:"
                    f"{listed}{more}", tuple((one.pid, one.name) for one in meant))


def no_process(recording: Recording) -> BadTarget:
    """Return that a recording has no process, and what it has."""
    path = in_a_line(recording.path)
    if recording.meta.reason:
        return BadTarget(f"{path} has no process: when the armed recorder made it, the cgroup had"
                         " none, or none that it could read; pagewalk explain"
                         f" {path} says what happened")
    return BadTarget(f"{path} has no process: it is a recording of {recording.meta.set}")


def open_in(recording: Recording, pid: int) -> RecordedSource:
    """Return process ``pid`` of an open recording, which is closed with it; raises BadRecording."""
    found = document(recording, pid, PROCESS, Found)
    vmas, extra = read_vmas(recording, pid)
    if not extra.pop("told_all"):
        raise BadRecording(recording.path, f"process {pid} has no VMAs")
    extra["shmem_swap"] = extra["shmem_swap"] if found.told_shmem_swap else None
    extra["locked"] = extra["locked"] != 0 if found.told_locked else None
    if not found.theirs:
        raise BadRecording(recording.path, f"the kernel's numbers for process {pid} are missing")
    space = RecordedSpace(recording, pid, recording.facts, found.tells, vmas)
    source = RecordedSource(found.source, found, space, extra, found.notes)
    source.check_columns((found.page_size, found.thp_eligible))
    return source


def document(recording: Recording, pid: int | None, name: str, kind: Any) -> Any:
    """Return the document called ``name``, of a process or of none; raises BadRecording."""
    found = find_document(recording, pid, name, kind)
    if found is None:
        raise BadRecording(recording.path, f"it has no {name}"
                           + (f" of process {pid}" if pid is not None else ""))
    return found


def find_document(recording: Recording, pid: int | None, name: str, kind: Any) -> Any:
    """Return the document called ``name``, of a process or of none; None if there is none.

    Raises BadRecording.
    """
    for part in recording.parts("document", ("pid", "name", "text"), pid):
        names = part.texts("name")
        if name in names:
            try:
                return from_text(part.text("text", names.index(name)), kind)
            except Malformed as error:
                raise BadRecording(recording.path, f"its {name} is damaged: {error}") from None
    return None


def read_vmas(recording: Recording, pid: int) -> tuple[VMAs, dict[str, Any]]:
    parts = list(at_most(recording.parts("vma", VMA_COLUMNS, pid)))
    if not parts:
        return no_vmas(), {"told_all": False}
    columns: dict[str, Any] = {}
    for name in VMA_COLUMNS:
        if name == "name":
            continue
        pieces = [one for part in parts if (one := part.numbers(name)) is not None]
        columns[name] = np.concatenate(pieces) if len(pieces) == len(parts) else None
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
    ordered = (vmas.start < vmas.end).all() and (vmas.start[1:] >= vmas.end[:-1]).all()
    page = np.uint64(recording.facts.page_size)
    if not ordered or (vmas.start % page).any() or (vmas.end % page).any() or (
            vmas.backing > 7).any():
        raise BadRecording(recording.path, f"the VMAs of process {pid} are out of order")
    zeros = np.zeros(len(vmas), np.int64)
    more = {name: zeros if columns[name] is None else columns[name]
            for name in ("shmem_swap", "locked")}
    return vmas, {**more, "told_all": True}


def no_vmas() -> VMAs:
    words, small = np.zeros(0, np.uint64), np.zeros(0, np.uint8)
    return VMAs(words, words, small, words, words, words, small, ())
