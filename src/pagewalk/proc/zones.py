"""/proc/zoneinfo: where the zones of physical memory are, and what is free in them and kept."""

import re
from typing import NamedTuple

from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.proc import files
from pagewalk.proc.pagemap import PAGE

PATH = "/proc/zoneinfo"
# "Node 0, zone   Normal"
HEADING = re.compile(rb"Node +(\d{1,10}), zone +([^ \n]+)\n")
# The lines we need: "  pages free     3840", "        spanned  4095", "  start_pfn:           1",
# and for each CPU "              count:    0" and "  vm stats threshold: 4". The statistics of the
# node and of the zone, called nr_..., are in vmstat too.
LINE = re.compile(
    rb"(?m)^(?:  pages)? +(free|boost|min|low|high|spanned|present|managed|cma|count:|"
    rb"vm stats threshold:|start_pfn:) +(\d{1,20})$"
)
PROTECTION = re.compile(rb"(?m)^ +protection: \((\d{1,20}(?:, \d{1,20})*)\)$")


class Zone(NamedTuple):
    """One zone of one node: frames [``start``, + ``spanned``). Amounts are pages.

    ``start`` is None where the kernel does not show it because no page of the zone is RAM: then
    ``spanned`` is 0, or the zone belongs to a device. ``present`` are RAM, ``managed`` are the page
    allocator's (the others were kept at boot, or wait for their initialisation). ``min``, ``low``
    and ``high`` are the watermarks, ``boost`` of them what fragmentation adds for a while (None
    where the kernel does not show it). ``protection[other]`` are kept from what could be allocated
    from zone ``other`` of the node too. ``listed`` are free in the lists of its CPUs, not counted
    in ``free``. A counter of vmstat or zoneinfo lags by at most ``threshold`` on each of ``cpus``
    in this zone. Source: mm/vmstat.c, zoneinfo_show_print.
    """

    node: int
    name: str
    start: int | None
    spanned: int
    present: int
    managed: int
    free: int
    min: int
    low: int
    high: int
    boost: int | None
    protection: tuple[int, ...]
    listed: int
    threshold: int
    cpus: int


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
    before, *parts = re.split(rb"(?m)^(?=Node)", text)
    if before:
        raise BadText("zoneinfo", 1, before)
    zones, line = [], 1
    for part in parts:
        zone = parse_zone(part)
        if zone is None:
            raise BadText("zoneinfo", line, part)
        zones.append(zone)
        line += part.count(b"\n")
    return zones


def parse_zone(text: bytes) -> Zone | None:
    # None if a number that every kernel shows is missing. Each CPU has a count and a threshold.
    heading = HEADING.match(text)
    said: dict[bytes, list[int]] = {}
    for name, value in LINE.findall(text):
        said.setdefault(name, []).append(int(value))
    protection = PROTECTION.search(text)
    thresholds = said.get(b"vm stats threshold:", [])
    if not heading:
        return None
    try:
        return Zone(
            node=int(heading[1]),
            name=files.decode_name(heading[2]),
            start=said.get(b"start_pfn:", [None])[0],
            spanned=said[b"spanned"][0],
            present=said[b"present"][0],
            managed=said[b"managed"][0],
            free=said[b"free"][0],
            min=said[b"min"][0],
            low=said[b"low"][0],
            high=said[b"high"][0],
            boost=said.get(b"boost", [None])[0],
            protection=tuple(map(int, protection[1].split(b", "))) if protection else (),
            listed=sum(said.get(b"count:", [])),
            threshold=max(thresholds, default=0),
            cpus=len(said.get(b"count:", [])),
        )
    except KeyError:
        return None


def read_zones() -> list[Zone]:
    """Return the zones of this machine, as any user; raises SourceUnavailable, BadText."""
    return parse_zones(files.read_for_all(PATH))


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
