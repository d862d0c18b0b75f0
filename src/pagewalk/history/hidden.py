"""What a recording leaves out of what was looked at: addresses, and where it is scrubbed names.

Without --physical no place in RAM and no address of the kernel is kept. What has one address still
has one number: who is charged stays visible. With --scrub the same holds for cgroups: each part of
a path becomes a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pagewalk.kernel.bpf_maps import BpfMap
from pagewalk.kernel.structs.memcgs import Memcgs
from pagewalk.model.columns import Rows, Withheld
from pagewalk.proc.dma_buffers import DmaBuffer
from pagewalk.proc.slabinfo import SlabCache
from pagewalk.proc.zones import Zone
from pagewalk.system import files, slabs
from pagewalk.system.containers import Name
from pagewalk.system.group import Group, Objects
from pagewalk.system.machine import FilesLook

Kept = TypeVar("Kept")

# An address of the kernel's half in a sentence; with five levels it begins at ff00000000000000.
KERNELS = re.compile(r"\b(?:0x)?ff[0-9a-f]{14}\b")
# A path in a sentence; those of the kernel's own files name nobody.
PATH = re.compile(r"(?<![\w.])/(?!(?:proc|sys/kernel|sys/class)\b)[^\s;:,'\"()]+")
SHARED_ANONYMOUS = "dev/zero"  # a name of the kernel's own (mm/shmem.c)
SCRUBBED = Withheld("names of files", "the recording was made with --scrub")


class Names(NamedTuple):
    """What each cgroup is and what people call it, by path."""

    of: dict[str, Name]


class Hidden:
    """What one recording leaves out; the same of everything that it keeps.

    ``physical`` keeps addresses, ``scrub`` leaves names out.
    """

    def __init__(self, *, physical: bool, scrub: bool) -> None:
        self.scrub = scrub
        self._words: dict[int, int] = {0: 0}
        self._paths: dict[str, str] = {"": "", "/": "/"}
        self._rules: dict[type, Callable[[Any], Any]] = {}
        if not physical:
            self._rules |= {
                Memcgs: unplaced, Zone: lambda one: one._replace(start=None),
                Withheld: lambda one: one._replace(why=without_addresses(one.why)),
                Group: lambda one: one._replace(not_looked=tuple(
                    (pid, without_addresses(why)) for pid, why in one.not_looked)),
                files.Charge: lambda one: one._replace(owner=self.word(one.owner)),
                FilesLook: lambda one: one._replace(
                    owners={self.word(word): path for word, path in one.owners.items()}),
            }
        self._names = self._naming() if scrub else {}

    def of(self, value: Kept) -> Kept:
        """Return ``value`` (see snapshot.documents) without what is left out."""
        found: Kept = replaced(replaced(value, self._rules), self._names)
        return found

    def word(self, word: int) -> int:
        """Return the number that stands for ``word``, an address."""
        return self._words.setdefault(word, len(self._words))

    def path(self, path: str) -> str:
        """Return the path that stands for that of a cgroup; itself unless names are left out."""
        if not self.scrub:
            return path
        if path not in self._paths:
            above, _, _ = path.rpartition("/")
            self._paths[path] = f"{self.path(above).rstrip('/')}/{len(self._paths) - 1}"
        return self._paths[path]

    def _naming(self) -> dict[type, Callable[[Any], Any]]:
        return {
            files.CachedFile: unnamed,
            files.FilesReport: lambda one: one._replace(withheld=(*one.withheld, SCRUBBED)),
            FilesLook: lambda one: one._replace(
                owners={word: self.path(path) for word, path in one.owners.items()}),
            slabs.Charge: lambda one: one._replace(
                group=None if one.group is None else self.path(one.group)),
            slabs.Cache: lambda one: one._replace(name=plain_cache(one.name)),
            Objects: lambda one: one._replace(cache=plain_cache(one.cache)),
            SlabCache: lambda one: one._replace(name=plain_cache(one.name)),
            BpfMap: lambda one: one._replace(name=""),
            DmaBuffer: lambda one: one._replace(name=""),
            Withheld: lambda one: one._replace(what=without_paths(one.what),
                                               why=without_paths(one.why)),
            Memcgs: lambda one: replace(one, path=tuple(map(self.path, one.path))),
            Group: self._group,
            Names: lambda one: Names({self.path(path): self._name(path, name)
                                      for path, name in one.of.items()}),
        }

    def _name(self, path: str, name: Name) -> Name:
        return Name(name.kind, self.path(path).rpartition("/")[2] or "/", name.engine)

    def _group(self, one: Group) -> Group:
        return one._replace(
            path=self.path(one.path),
            above=tuple((self.path(path), numbers) for path, numbers in one.above),
            below=tuple((self.path(path), held) for path, held in one.below),
            elsewhere=without_files(one.elsewhere), uncharged=without_files(one.uncharged),
            not_looked=tuple((pid, without_paths(why)) for pid, why in one.not_looked),
        )


def replaced(value: Any, rules: Mapping[type, Callable[[Any], Any]]) -> Any:
    """Return ``value`` with each value in it of a type of ``rules`` replaced by what its rule says.

    What is within comes first.
    """
    if not rules:
        return value
    kind = type(value)
    if isinstance(value, tuple):
        within = (replaced(one, rules) for one in value)
        value = kind(*within) if hasattr(kind, "_fields") else tuple(within)
    elif isinstance(value, list):
        value = [replaced(one, rules) for one in value]
    elif isinstance(value, Mapping):
        value = {replaced(key, rules): replaced(one, rules) for key, one in value.items()}
    elif isinstance(value, Rows):
        value = kind(*(replaced(getattr(value, name), rules) for name in value.names))
    rule = rules.get(kind)
    return value if rule is None else rule(value)


def unplaced(groups: Memcgs) -> Memcgs:
    """Return ``groups`` without where their mem_cgroups are."""
    return replace(groups, memcg=np.zeros(len(groups), np.uint64))


def unnamed(file: files.CachedFile) -> files.CachedFile:
    """Return ``file`` without its name; what has none is still told apart."""
    inside = file.inside if file.inside == SHARED_ANONYMOUS else None
    return file._replace(inside=inside, place=None)


def without_addresses(text: str) -> str:
    """Return a sentence without addresses of the kernel."""
    return KERNELS.sub("(an address)", text)


def without_paths(text: str) -> str:
    """Return a sentence up to its first path: nothing shows where one with blanks ends."""
    found = PATH.search(text)
    return text if found is None else f"{text[: found.start()]}(a path) ..."


def without_files(held: Mapping[str, int]) -> dict[str, int]:
    """Return bytes by the name of a mapping, those of all files together under "a file"."""
    found: dict[str, int] = {}
    for name, size in held.items():
        plain = "a file" if "/" in name else name
        found[plain] = found.get(plain, 0) + size
    return found


def plain_cache(name: str | None) -> str | None:
    """Return the name of a cache without that of a cgroup, which kernels before 5.9 append."""
    return None if name is None else name.partition("(")[0]
