"""A machine that answers what it was given, and what it says as a recording."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pagewalk.history.hidden import Hidden
from pagewalk.history.record_ram import Looks, add_looks
from pagewalk.model.facts import Facts
from pagewalk.snapshot.write import Writer, whole_file
from pagewalk.system.containers import Name
from pagewalk.system.files import MOST
from pagewalk.system.group_table import GroupTable
from pagewalk.system.kernel_memory import KernelMemory
from pagewalk.system.look import Ram
from pagewalk.system.machine import FilesLook, MapLook
from tests.snapshot.by_hand import META


class Held:
    """A Machine whose looks were made before: each time it is asked it says the same."""

    def __init__(self, facts: Facts, looks: Looks) -> None:
        self.facts, self.found = facts, looks.found

    def ram(self) -> Ram:
        found: Ram = self.found["ram"]
        return found

    def files(self, most: int = MOST) -> FilesLook:
        found: FilesLook = self.found["files"]
        return found

    def slab(self) -> KernelMemory:
        found: KernelMemory = self.found["slab"]
        return found

    def map(self) -> MapLook:
        found: MapLook = self.found["map"]
        return found

    def cgroups(self, *, dying: bool) -> GroupTable:
        found: GroupTable = self.found["cgroups"]
        return found if dying else found._replace(keepers=())

    def names(self, paths: Iterable[str]) -> dict[str, Name]:
        return {path: self.found["names"].of[path] for path in paths}


def recorded(path: Path, facts: Facts, looks: Looks, **how: Any) -> str:
    """Record ``looks``; return where."""
    how = {"physical": True, "scrub": False} | how
    with whole_file(str(path)) as out:
        writer = Writer(out)
        add_looks(writer, looks, Hidden(**how))
        writer.close(META._replace(physical=how["physical"], scrubbed=how["scrub"]), facts)
    return str(path)
