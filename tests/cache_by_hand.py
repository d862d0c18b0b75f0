"""A model that is half in RAM, a library, a memfd in swap and a file that nobody tells about."""

from __future__ import annotations

from typing import Any

import numpy as np

from pagewalk.model.columns import Withheld
from pagewalk.sources.outcome import Who
from pagewalk.system.file_cache import CacheLook, Cells, FileCache

MIB = 1 << 20


def cells(*parts: tuple[int, int], swapped: tuple[int, ...] | None = None) -> Cells:
    """Return cells of 4 MiB: of each what is mapped, and what is cached, in MiB."""
    mapped, cached = np.array(parts, np.int64).T * MIB
    return Cells(np.full(len(parts), 4 * MIB), mapped, cached,
                 None if swapped is None else np.array(swapped, np.int64) * MIB)


MODEL = FileCache(
    "/srv/model.bin", 1, 11, "file", mappings=2, covered=16 * MIB, mapped=5 * MIB, copies=MIB,
    size=16 * MIB, cached=10 * MIB, dirty=MIB, writeback=0,
    cells=cells((4, 4), (0, 3), (1, 1), (0, 2)))
MEMFD = FileCache(
    "/memfd:lent (deleted)", 2, 12, "shmem", mappings=1, covered=8 * MIB, mapped=2 * MIB, copies=0,
    size=8 * MIB, cached=3 * MIB, dirty=0, writeback=0, swapped=4 * MIB,
    cells=cells((2, 3), (0, 0), swapped=(0, 4)))
UNTOLD = FileCache("/mnt/far", 3, 13, "file", mappings=1, covered=MIB, mapped=4096, copies=0,
                   why="it is on fuse: looking at it might keep us waiting")


def look(*files: FileCache, **changed: Any) -> CacheLook:
    """Return what is in RAM of ``files``, which a process maps."""
    files = files or (MODEL, MEMFD, UNTOLD)
    why = tuple(Withheld(f"what is in RAM of {one.name}", one.why, partial=True)
                for one in files if one.why)
    made = CacheLook(files, "ebpf", Who(42, "llama", "/usr/bin/llama"), None, 1000, why)
    return made._replace(**changed)
