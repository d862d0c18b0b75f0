"""/proc/zoneinfo: where the zones of physical memory lie, and which of them are a device's."""

from __future__ import annotations

from typing import NamedTuple

from pagewalk.errors import SourceUnavailable
from pagewalk.proc.files import read_bytes
from pagewalk.proc.pagemap import PAGE

PATH = "/proc/zoneinfo"


class Zone(NamedTuple):
    """One zone of one node: frames [``start``, + ``spanned``).

    ``start`` is None where the kernel does not tell it, because no page of the zone is RAM
    (``spanned`` is 0 then, or the zone is a device's). Source: mm/vmstat.c, zoneinfo_show_print.
    """

    name: str
    start: int | None
    spanned: int


class Memory(NamedTuple):
    """What physical memory there is: ``ram_end``, bytes, is the end of the last zone of RAM.

    ``devices``: there is memory that is a device (persistent memory, CXL, a GPU's), with struct
    pages of its own and at addresses that the kernel does not tell.
    """

    ram_end: int
    devices: bool


def parse_zones(text: bytes) -> list[Zone]:
    """Return the zones of a zoneinfo file in its order; raises ValueError for a broken line."""
    zones: list[Zone] = []
    for line in text.split(b"\n"):
        words = line.split()
        if words[:1] == [b"Node"]:
            # "Node 0, zone   Normal"
            zones.append(Zone(words[-1].decode(errors="replace"), None, 0))
        elif len(words) == 2 and zones:
            if words[0] == b"spanned":
                zones[-1] = zones[-1]._replace(spanned=int(words[1]))
            elif words[0] == b"start_pfn:":
                zones[-1] = zones[-1]._replace(start=int(words[1]))
    return zones


def memory_of(zones: list[Zone]) -> Memory:
    """Return what memory ``zones`` make up; raises ValueError when none of them is RAM."""
    ends = [zone.start + zone.spanned for zone in zones if zone.start is not None and zone.spanned]
    devices = any(zone.start is None and zone.spanned for zone in zones)
    return Memory(max(ends) * PAGE, devices)


def read_memory() -> Memory:
    """Return what memory there is; every user may read it. Raises SourceUnavailable."""
    try:
        return memory_of(parse_zones(read_bytes(PATH)))
    except OSError as error:
        why = f"cannot read {PATH}: {error.strerror}"
    except ValueError:
        why = f"{PATH} names no zone of RAM"
    remedy = "take --source procfs, or mount /proc without subset=pid"
    raise SourceUnavailable("kernel memory", f"{why}, so where RAM ends is not known", remedy)
