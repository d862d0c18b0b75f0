"""/proc/zoneinfo: where the zones of physical memory are, and which belong to a device."""

import re
from typing import NamedTuple

from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.proc import files
from pagewalk.proc.pagemap import PAGE

PATH = "/proc/zoneinfo"
# The lines we need: "Node 0, zone   Normal", "  spanned  4095", "  start_pfn:  1".
LINE = re.compile(rb"(?m)^(?:Node| *spanned| *start_pfn:)(?: [^\n]*)?$")


class Zone(NamedTuple):
    """One zone of one node: frames [``start``, + ``spanned``).

    ``start`` is None where the kernel does not show it because no page of the zone is RAM: then
    ``spanned`` is 0, or the zone belongs to a device. Source: mm/vmstat.c, zoneinfo_show_print.
    """

    name: str
    start: int | None
    spanned: int


class Memory(NamedTuple):
    """What physical memory there is; ``ram_end`` is the end of the last zone of RAM, in bytes.

    It is None if that is not known; then RAM may be anywhere up to the last physical address.
    ``devices`` says that there is device memory (persistent memory, CXL, a GPU's), which has struct
    pages of its own, at addresses that the kernel does not show.
    """

    ram_end: int | None
    devices: bool


def parse_zones(text: bytes) -> list[Zone]:
    """Return the zones of a zoneinfo file in file order; raises BadText."""
    if not text.endswith(b"\n"):
        files.lines(text, "zoneinfo")  # raises for a last line that is cut off
    zones: list[Zone] = []
    for match in LINE.finditer(text):
        line = match[0]
        words = files.words(line)
        try:
            if words[0] == b"Node":
                zones.append(Zone(files.decode_name(words[3]), None, 0))
            elif words[0] == b"spanned":
                zones[-1] = zones[-1]._replace(spanned=files.number(words[1]))
            else:
                zones[-1] = zones[-1]._replace(start=files.number(words[1]))
        except (ValueError, IndexError):
            raise BadText("zoneinfo", text.count(b"\n", 0, match.start()) + 1, line) from None
    return zones


def memory_of(zones: list[Zone]) -> Memory:
    """Return the memory that ``zones`` make up; ``ram_end`` is 0 when none of them is RAM."""
    ends = [zone.start + zone.spanned for zone in zones if zone.start is not None and zone.spanned]
    devices = any(zone.start is None and zone.spanned for zone in zones)
    return Memory(max(ends, default=0) * PAGE, devices)


def read_memory() -> Memory:
    """Read what physical memory there is, as any user. Raises SourceUnavailable, BadText."""
    try:
        text = files.read_bytes(PATH)
    except OSError:  # /proc is mounted with subset=pid
        return Memory(None, devices=True)
    memory = memory_of(parse_zones(text))
    if memory.ram_end:
        return memory
    raise SourceUnavailable(
        "kernel memory",
        f"{PATH} names no zone of RAM, so where RAM ends is not known",
        "use --source procfs",
    )
