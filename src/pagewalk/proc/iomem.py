"""/proc/iomem: the ranges of physical memory that the firmware gave as RAM."""

import re
from collections.abc import Iterator
from itertools import pairwise

from pagewalk.model.errors import NotPermitted, SourceUnavailable
from pagewalk.proc.files import read_bytes, rows
from pagewalk.proc.pagemap import PAGE

PATH = "/proc/iomem"
# "00100000-bfffffff : System RAM"; what lies inside a range is indented (kernel/resource.c).
LINE = re.compile(rb"(?m)^( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : ([^\n]*)\n")


def parse_ranges(text: bytes) -> list[tuple[int, int]]:
    """Return [first, last) PFNs of each System RAM range, whole frames only; raises BadText."""
    found = []
    for indent, start, end, name in rows(LINE, text, "iomem"):
        if not indent and name == b"System RAM":
            first, last = -(-int(start, 16) // PAGE), (int(end, 16) + 1) // PAGE
            if first < last:
                found.append((first, last))
    return found


def read_ranges() -> list[tuple[int, int]]:
    """Return the ranges of RAM as [first, last) PFNs, ascending.

    Without CAP_SYS_ADMIN the kernel shows all addresses as 0. Raises NotPermitted,
    SourceUnavailable, BadText.
    """
    try:
        found = parse_ranges(read_bytes(PATH))
    except OSError as error:
        why = f"cannot read {PATH}: {error.strerror}"
        raise SourceUnavailable("RAM", why, "mount /proc") from error
    if not found:
        raise NotPermitted(f"where RAM is ({PATH})", "hidden from everyone without CAP_SYS_ADMIN",
                           "run as root")
    return found


def cut(ranges: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Yield ``ranges`` cut at each multiple of ``size``: no aligned block lies in two parts."""
    for first, last in ranges:
        yield from pairwise([first, *range((first // size + 1) * size, last, size), last])
