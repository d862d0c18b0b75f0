"""Which process of a recording TARGET names: FILE, or FILE:PROCESS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pagewalk.model.errors import BadRecording, BadTarget, in_a_line
from pagewalk.snapshot.part import Part
from pagewalk.snapshot.places import is_recording
from pagewalk.snapshot.read import Recording

MOST_PROCESSES = 1 << 22  # that a kernel can have (PID_MAX_LIMIT), and as many VMAs


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
    among = meant or every
    listed = "".join(
        f"\n  {one.pid:>8}  {in_a_line(one.program or one.name)}" for one in among[:20])
    more = f"\n  ... and {len(among) - 20} more" if len(among) > 20 else ""
    if process and not meant:
        raise BadTarget(f"no process of {path} is called '{in_a_line(process)}'; it has:{listed}"
                        f"{more}")
    raise BadTarget(f"{path} has {len(among)} processes"
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


def at_most(parts: Iterator[Part]) -> Iterator[Part]:
    """Yield ``parts``; raises BadRecording when there are more rows than of any process."""
    rows = 0
    for part in parts:
        rows += len(part)
        if rows > MOST_PROCESSES:
            raise BadRecording(part.path, f"it has more than {MOST_PROCESSES} processes or VMAs")
        yield part
