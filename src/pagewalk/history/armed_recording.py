"""What a recording of the armed recorder tells of its cgroup, beside the pages of processes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.history.trigger import DOCUMENT, REASONS, Trigger, withheld
from pagewalk.model.columns import Withheld
from pagewalk.snapshot.read import Recording
from pagewalk.sources.recorded import document, find_document
from pagewalk.sources.recorded_target import Recorded, at_most, processes_of
from pagewalk.system.recorded_processes import SET, RecordedSet, Refused

LISTED = 3  # shared files, the largest


class SharedFile(NamedTuple):
    """A file in a tmpfs, or shared memory, that the recorded process ``pid`` had mapped.

    ``rss`` is what of it that process had in its RSS, bytes.
    """

    name: str
    pid: int
    process: str
    rss: int


class ArmedRecording(NamedTuple):
    """Why a recording was made, and what is in it.

    ``recorded`` are the pids of the address spaces in it, ``refused`` the processes that could not
    be recorded. ``shared`` are the files in tmpfs of which a process had most in its RSS, the
    largest first.
    """

    trigger: Trigger
    recorded: tuple[int, ...] = ()
    refused: tuple[Refused, ...] = ()
    shared: tuple[SharedFile, ...] = ()

    @property
    def withheld(self) -> list[Withheld]:
        """Return what the recorder could not find out."""
        first = [Withheld("some processes of the cgroup", f"{len(self.refused)} could not be"
                          f" recorded; process {one.pid}: {one.error}", partial=True)
                 for one in self.refused[:1]]
        return [*withheld(self.trigger), *first]


def read_armed(path: str) -> ArmedRecording | None:
    """Return what the armed recorder's recording at ``path`` tells; None if it is another.

    Raises BadRecording.
    """
    with Recording(path) as recording:
        if recording.meta.reason not in REASONS:
            return None
        trigger: Trigger = document(recording, None, DOCUMENT, Trigger)
        together: RecordedSet | None = find_document(recording, None, SET, RecordedSet)
        processes = processes_of(recording)
        return ArmedRecording(
            trigger, tuple(one.pid for one in processes), together.refused if together else (),
            shared_files(recording, processes))


def shared_files(recording: Recording, processes: list[Recorded]) -> tuple[SharedFile, ...]:
    """Return of which files in tmpfs a process had most in its RSS; raises BadRecording."""
    held: dict[tuple[int, int, int], int] = {}
    names: dict[tuple[int, int], str] = {}
    for part in at_most(recording.parts("vma", ("pid", "dev", "inode", "name", "shmem"))):
        shmem = part.numbers("shmem")
        if shmem is None:
            continue
        pids, devices, inodes = (part.needed(name) for name in ("pid", "dev", "inode"))
        for row in np.flatnonzero(shmem > 0).tolist():
            key = int(devices[row]), int(inodes[row])
            names.setdefault(key, part.text("name", row))
            held[*key, int(pids[row])] = held.get((*key, int(pids[row])), 0) + int(shmem[row])
    called, found = {one.pid: one.name for one in processes}, dict[tuple[int, int], SharedFile]()
    for (dev, inode, pid), rss in sorted(held.items(), key=lambda row: -row[1]):
        # What was written of a process before it ended has no row of a process.
        if pid in called:
            key = dev, inode
            found.setdefault(key, SharedFile(names[key], pid, called[pid], rss))
    return tuple(found.values())[:LISTED]
