"""A process of a recording: the address space that was walked, and what else was found out.

It answers what the live process answered, on any machine and without any rights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pagewalk.model.columns import VMAs, Withheld
from pagewalk.model.errors import BadRecording
from pagewalk.proc.counters import Theirs
from pagewalk.proc.smaps import LastSmaps
from pagewalk.proc.stall import Stall
from pagewalk.snapshot.documents import Malformed, from_text
from pagewalk.snapshot.read import Recording
from pagewalk.sources.found import Found
from pagewalk.sources.outcome import Outcome, Who
from pagewalk.sources.recorded_space import RecordedSpace, read_vmas
from pagewalk.sources.recorded_target import named_recording, one_of

PROCESS = "process"  # the document about one
NUMBERED_ANEW = Withheld(
    "phys and pfn", "the recording was made without --physical: its frames are numbered anew")


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


def open_in(recording: Recording, pid: int) -> RecordedSource:
    """Return process ``pid`` of an open recording, which is closed with it; raises BadRecording."""
    found = document(recording, pid, PROCESS, Found)
    vmas, extra = read_vmas(recording, pid)
    if not extra:
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
