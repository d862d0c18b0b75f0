"""/sys/kernel/mm/transparent_hugepage: where this machine is set to use huge pages.

Source: Documentation/admin-guide/mm/transhuge.rst. The order of a size is its base-2 logarithm in
pages; a mask has bit n set for order n.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from pagewalk.proc.files import read_bytes
from pagewalk.proc.pagemap import PAGE

ROOT = "/sys/kernel/mm/transparent_hugepage"
SIZE = re.compile(r"hugepages-(\d{1,9})kB")


class Policy(NamedTuple):
    """The transparent huge page settings in force.

    ``anon`` and ``shmem`` are the top-level settings ("always", "madvise", "never"; "advise",
    "deny", ...). ``anon_orders`` and ``shmem_orders`` map each per-size setting ("always",
    "inherit", ...) to a mask of orders; both are empty where the kernel has no per-size settings.
    """

    anon: str
    shmem: str
    anon_orders: dict[str, int]
    shmem_orders: dict[str, int]


def read_policy(root: str = ROOT) -> Policy | None:
    """Return the settings, or None if the kernel is built without huge pages; raises OSError."""
    try:
        anon = chosen(read_bytes(f"{root}/enabled"))
    except FileNotFoundError:
        return None
    shmem = read_setting(f"{root}/shmem_enabled") or "never"
    by_size: dict[str, dict[str, int]] = {"enabled": {}, "shmem_enabled": {}}
    for match in filter(None, map(SIZE.fullmatch, os.listdir(root))):
        order = ((int(match[1]) << 10) // PAGE).bit_length() - 1
        for name, masks in by_size.items():
            word = read_setting(f"{root}/{match[0]}/{name}")
            if word is not None:
                masks[word] = masks.get(word, 0) | 1 << order
    return Policy(anon, shmem, by_size["enabled"], by_size["shmem_enabled"])


def read_underused(pages: int, root: str = ROOT) -> int | None:
    """Return how many of the ``pages`` of a huge page may be zero before the kernel splits it.

    It does that when memory runs short. ``pages`` if it does so with none, None if that is not
    known. Source: thp_underused() and deferred_split_scan(), mm/huge_memory.c; since 6.12.
    """
    try:
        if int(read_bytes(f"{root}/shrink_underused")) == 0:
            return pages
        most = int(read_bytes(f"{root}/khugepaged/max_ptes_none"))
    except FileNotFoundError:
        return pages if os.path.isdir(root) else None
    except (OSError, ValueError):
        return None
    return pages if most >= pages - 1 else most


def read_setting(path: str) -> str | None:
    # None: this kernel has no such setting.
    try:
        return chosen(read_bytes(path))
    except FileNotFoundError:
        return None


def chosen(text: bytes) -> str:
    """Return the word in brackets, as in ``always [madvise] never``."""
    return text.partition(b"[")[2].partition(b"]")[0].decode("ascii", "replace")
