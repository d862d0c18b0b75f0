"""What a HotSpot JVM tells about its heap: its performance data, a file that it maps.

The numbers of a space are those of the last collection (jdk.internal.perf, perfMemory.hpp).
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from pagewalk.heap.memory import Memory

FILE = re.compile(r"/hsperfdata_[^/]+/[0-9]+")
LARGEST = 1 << 20
MAGIC = b"\xca\xfe\xc0\xc0"
# PerfDataPrologue: order of bytes, version, whether it may be read yet; bytes used, the first
# entry, how many. PerfDataEntry: its length, where its name begins, elements of an array, type,
# flags, unit, variability, where its data begin.
PROLOGUE, ENTRY = "4sBBBBiiqii", "iiiBBBBi"
SPACE = re.compile(r"sun\.gc\.generation\.(\d+)(?:\.space\.(\d+))?\.(name|capacity|used)")


class Space(NamedTuple):
    """A space of the Java heap, or metaspace: bytes of ``capacity`` and ``used`` of them."""

    name: str
    capacity: int
    used: int


def performance_data(memory: Memory) -> dict[str, int | str]:
    """Return a JVM's performance data; none if it is no JVM, or has none."""
    rows = [row for row, name in enumerate(memory.vmas.name) if name and FILE.search(name)]
    for start, end in memory.vmas.ranges[rows].tolist():
        if end - start <= LARGEST:
            return parse(memory.words(start, end).tobytes())
    return {}


def attachable(told: dict[str, int | str]) -> bool | None:
    """Return whether the JVM may be asked, as its data ``told`` say; None if they do not."""
    capabilities = told.get("sun.rt.jvmCapabilities")  # Management::init, management.cpp
    return capabilities[:1] == "1" if isinstance(capabilities, str) and capabilities else None


def parse(raw: bytes) -> dict[str, int | str]:
    """Return the numbers and texts in performance data; none if they are not valid."""
    found: dict[str, int | str] = {}
    if len(raw) < struct.calcsize("<" + PROLOGUE) or raw[:4] != MAGIC or raw[4] > 1:
        return found
    order = "<" if raw[4] == 1 else ">"
    *_, at, count = struct.unpack_from(order + PROLOGUE, raw)
    for _ in range(count):
        if not 0 <= at <= len(raw) - struct.calcsize(order + ENTRY):
            break
        length, name, elements, kind, _, _, _, data = struct.unpack_from(order + ENTRY, raw, at)
        if length <= 0 or not 0 < name < length or not 0 < data < length:
            break
        key = raw[at + name : at + length].partition(b"\0")[0].decode("ascii", "replace")
        value = raw[at + data : at + length]
        if kind == ord("J") and not elements and len(value) >= 8:
            found[key] = struct.unpack_from(order + "q", value)[0]
        elif kind == ord("B"):
            found[key] = value[:elements].partition(b"\0")[0].decode("ascii", "replace")
        at += length
    return found


def spaces(told: dict[str, int | str]) -> list[Space] | None:
    """Return the spaces that the data ``told`` tell."""
    rows: dict[tuple[str, str], dict[str, int | str | None]] = {}
    for key, value in told.items():
        match = SPACE.fullmatch(key)
        if match and match[2] is not None:
            # A generation that is one space calls that "space".
            whole = told.get(f"sun.gc.generation.{match[1]}.name")
            row = rows.setdefault((match[1], match[2]), {})
            row[match[3]] = whole if value == "space" else value
    found = [space(row) for _, row in sorted(rows.items())]
    metaspace = {name: told.get(f"sun.gc.metaspace.{name}", -1) for name in ("capacity", "used")}
    found.append(space({"name": "metaspace", **metaspace}))
    return [one for one in found if one is not None] or None


def space(row: dict[str, int | str | None]) -> Space | None:
    name, capacity, used = (row.get(key) for key in Space._fields)
    if isinstance(name, str) and isinstance(capacity, int) and isinstance(used, int):
        return Space(name, capacity, used) if capacity >= 0 and used >= 0 else None
    return None
