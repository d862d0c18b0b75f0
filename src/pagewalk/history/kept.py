"""The recordings that an armed recorder keeps in a folder: their names, and how many of them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b

ENDING = ".parquet"
ODD = re.compile(r"[^A-Za-z0-9_.-]+")
LONGEST = 60  # characters of a group's name: a file's has 255 bytes at most


def file_name(group: str, reason: str, at_ns: int) -> str:
    """Return what a recording of ``group`` (see called) is called, after its time, in UTC."""
    at = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return f"{at:%Y-%m-%dT%H-%M-%S}.{at_ns % 10**9 // 1000:06}Z-{reason}-{group}{ENDING}"


def called(path: str, number: int | None = None) -> str:
    """Return what stands for a cgroup in names of files: its name, and digits for its path.

    The name may hold anything but a slash, and other groups may have the same. Where it is to be
    scrubbed, its ``number`` stands for it, that of its inode: whoever guesses a path could tell it
    by its digits.
    """
    if number is not None:
        return f"cgroup-{number}"
    name = ODD.sub("_", path.rpartition("/")[2])[-LONGEST:] or "root"
    return f"{name}-{blake2b(os.fsencode(path), digest_size=4).hexdigest()}"


def prune(folder: str, group: str, reason: str, keep: int) -> None:
    """Remove all but the newest ``keep`` recordings of ``group`` (see called) for ``reason``."""
    ending = f"Z-{reason}-{group}{ENDING}"
    found = sorted(name for name in os.listdir(folder) if name.endswith(ending))
    for name in found[: max(0, len(found) - keep)]:
        with suppress(OSError):
            os.unlink(os.path.join(folder, name))
