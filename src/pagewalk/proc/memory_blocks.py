"""/sys/devices/system/memory: RAM in blocks that can be plugged in, and the NUMA node of each."""

from __future__ import annotations

import os
import re

from pagewalk.proc.files import read_bytes

ROOT = "/sys/devices/system/memory"
NODE = re.compile(r"node(\d{1,9})")


def node_of(phys: int, root: str = ROOT) -> int | None:
    """Return the NUMA node of a physical address, None if it is not told.

    Source: Documentation/admin-guide/mm/memory-hotplug.rst.
    """
    try:
        block = phys // int(read_bytes(f"{root}/block_size_bytes"), 16)
        found = map(NODE.fullmatch, os.listdir(f"{root}/memory{block}"))
        return next((int(match[1]) for match in found if match), None)
    except (OSError, ValueError, ZeroDivisionError):
        return None
