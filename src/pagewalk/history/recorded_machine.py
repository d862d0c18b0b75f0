"""All of RAM and its cgroups as a recording has them: the same looks, without the machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pagewalk.history.hidden import Names
from pagewalk.history.record_groups import GROUP, GroupLook
from pagewalk.history.record_ram import (
    CGROUPS,
    FILES,
    KINDS,
    MAP,
    MISSING,
    NAMES,
    RAM,
    SLAB,
    WORDS,
    Missing,
)
from pagewalk.model.errors import BadRecording, BadTarget, in_a_line
from pagewalk.model.facts import Facts
from pagewalk.proc.containers import Records
from pagewalk.snapshot.documents import Malformed, from_text
from pagewalk.snapshot.read import Recording
from pagewalk.system.containers import Name, names_of
from pagewalk.system.files import MOST
from pagewalk.system.group_table import GroupTable
from pagewalk.system.kernel_memory import KernelMemory
from pagewalk.system.look import Ram
from pagewalk.system.machine import FilesLook, MapLook

PHYSICAL = ("it is nothing but physical addresses, and the recording was made without"
            " --physical; record it with that")


class RecordedMachine:
    """The machine of ``recording``; see system.machine.Machine."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._texts = machine_documents(recording)
        self._names: dict[str, Name] | None = None

    @property
    def facts(self) -> Facts:
        """Return the facts of the kernel."""
        return self.recording.facts

    def ram(self) -> Ram:
        """Return what all of RAM was used for."""
        found: Ram = self._document(RAM)
        return found

    @property
    def has_ram(self) -> bool:
        """Return whether all of RAM was recorded."""
        return RAM in self._texts

    def files(self, most: int = MOST) -> FilesLook:
        """Return the page cache by file; of each sort as many as were recorded."""
        del most
        found: FilesLook = self._document(FILES)
        return found

    def slab(self) -> KernelMemory:
        """Return the kernel's memory by name."""
        found: KernelMemory = self._document(SLAB)
        return found

    def map(self) -> MapLook:
        """Return where in RAM its uses lay."""
        if not self.recording.meta.physical:
            raise self._lacks(MAP, PHYSICAL)
        found: MapLook = self._document(MAP)
        return found

    def cgroups(self, *, dying: bool) -> GroupTable:
        """Return all cgroups; with ``dying`` also what kept those that were removed."""
        found: GroupTable = self._document(CGROUPS)
        if dying and found.amounts.unmapped is None:
            raise self._lacks("the removed cgroups", "they are not visible without frames, which"
                              " the user who recorded it may not see")
        return found if dying else found._replace(keepers=())

    def names(self, paths: Iterable[str]) -> dict[str, Name]:
        """Return what each of the cgroups at ``paths`` was; by its path if nothing tells more."""
        if self._names is None:
            found: Names = self._document(NAMES)
            self._names = found.of
        wanted = list(paths)
        return {**names_of(wanted, Records()),
                **{path: self._names[path] for path in wanted if path in self._names}}

    def groups(self) -> list[str]:
        """Return the paths of the cgroups that were looked at."""
        return [name.removeprefix(GROUP) for name in self._texts if name.startswith(GROUP)]

    def group(self, path: str) -> GroupLook:
        """Return what the cgroup at ``path`` was charged for."""
        found: GroupLook = self._read(GROUP + path, GroupLook)
        return found

    def _document(self, name: str) -> Any:
        if name not in self._texts:
            missing = self._read(MISSING, Missing).why if MISSING in self._texts else {}
            why = missing.get(name, "record it with --ram")
            raise self._lacks(name, why)
        return self._read(name, KINDS[name])

    def _lacks(self, name: str, why: str) -> BadTarget:
        path = in_a_line(self.recording.path)
        return BadTarget(f"{path} does not have {WORDS.get(name, name)}: {why}")

    def _read(self, name: str, kind: Any) -> Any:
        try:
            return from_text(self._texts[name], kind)
        except Malformed as error:
            raise BadRecording(self.recording.path, f"its {name} is damaged: {error}") from None

    def close(self) -> None:
        """Close the recording."""
        self.recording.close()


def machine_documents(recording: Recording) -> dict[str, str]:
    """Return the documents of a recording that are about no process, by name."""
    found: dict[str, str] = {}
    for part in recording.parts("document", ("pid", "name", "text")):
        rows = part.without("pid")
        found |= {name or "": text or "" for name, text in zip(
            rows.texts("name"), rows.texts("text"), strict=True)}
    return found


def one_group(machine: RecordedMachine, word: str) -> GroupLook:
    """Return the recorded cgroup that ``word`` means, empty for the only one; raises BadTarget.

    ``word`` is its path, the last part of it, or what people call it.
    """
    every = machine.groups()
    meant = every if not word else [
        path for path in every
        if word in (path, path.rpartition("/")[2]) or word in called(machine, path)]
    if len(meant) == 1:
        return machine.group(meant[0])
    path = in_a_line(machine.recording.path)
    if not every:
        raise BadTarget(f"{path} does not say what a cgroup is charged for: record one with"
                        " record --cgroup")
    listed = "".join(f"\n  {in_a_line(one)}" for one in every)
    if not meant:
        raise BadTarget(f"no cgroup of {path} is called '{in_a_line(word)}'; it has:{listed}")
    raise BadTarget(f"{path} has {len(meant)} cgroups{f' called {in_a_line(word)}' * bool(word)};"
                    f" name one as FILE:/PATH:{listed}")


def called(machine: RecordedMachine, path: str) -> tuple[str, ...]:
    name = machine.group(path).name
    return tuple(filter(None, (name.name, name.container, name.id)))
