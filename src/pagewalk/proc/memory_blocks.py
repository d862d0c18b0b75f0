"""/sys/devices/system/memory: RAM in blocks that can be plugged in, and the NUMA node of each."""

from __future__ import annotations

import os
import re

from pagewalk.proc.files import read_bytes

ROOT = "/sys/devices/system/memory"
NODE = re.compile(r"node(\d{1,9})")


def node_of(phys: int, root: str = ROOT) -> int | None:
    """Return the NUMA node of a physical address, None if it is not told or its block has several.

    Source: Documentation/admin-guide/mm/memory-hotplug.rst.
    """
    try:
        block = phys // int(read_bytes(f"{root}/block_size_bytes"), 16)
        found = [match for name in os.listdir(f"{root}/memory{block}")
                 if (match := NODE.fullmatch(name))]
        return int(found[0][1]) if len(found) == 1 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
