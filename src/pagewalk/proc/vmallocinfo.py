"""/proc/vmallocinfo: the areas of the kernel's vmalloc space, and who asked for each, as root."""

import re
from functools import lru_cache
from typing import NamedTuple

from pagewalk.model.errors import BadText
from pagewalk.proc.files import decode_name, read_for_all, rows, words

PATH = "/proc/vmallocinfo"
# "0x00000000b372ff6b-0x00000000ea5f95ea   20480 kernel_clone+0x94/0x3e0 pages=4 vmalloc N0=4": the
# addresses are hashed (vmalloc_info_show, mm/vmalloc.c)
LINE = re.compile(rb"(?m)^([^ \n]+) +(\d{1,20})((?: [^\n]*)?)\n")
COUNT = re.compile(rb"(?:pages|N(\d{1,10}))=(\d{1,20})")
# What an area is for. Its caller comes before these, if the kernel knows it.
KINDS = frozenset({
    b"ioremap", b"sparse", b"vmalloc", b"vmap", b"user", b"dma-coherent", b"vpages", b"vm_map_ram",
    b"unpurged", b"vm_area",
})  # fmt: skip


class Area(NamedTuple):
    """One area of ``size`` bytes of addresses, a guard page included.

    ``caller`` is the function that asked for it ("kernel_clone+0x94/0x3e0", with its module in
    brackets), "" if the kernel does not say. ``pages`` are those of RAM behind it, None if they are
    not its own (of a device, mapped by the caller, or unknown), ``nodes`` on which node they are.
    ``kinds`` are the kernel's words: vmalloc, vmap, ioremap, user, and vpages if the list of its
    pages is an area too; ``vm_map_ram`` and ``unpurged`` (freed; its addresses are still taken)
    stand alone.
    """

    size: int
    caller: str
    pages: int | None
    kinds: tuple[str, ...]
    nodes: tuple[tuple[int, int], ...]


def parse_vmallocinfo(text: bytes) -> list[Area]:
    """Return the areas in a vmallocinfo file, in file order; raises BadText."""
    found = rows(LINE, text, "vmallocinfo")
    areas = []
    for line, (_, size, rest) in enumerate(found, 1):
        about = told(rest)
        if about is None:
            raise BadText("vmallocinfo", line, rest)
        areas.append(Area(int(size), *about))
    return areas


@lru_cache(maxsize=4096)
def told(
    rest: bytes,
) -> tuple[str, int | None, tuple[str, ...], tuple[tuple[int, int], ...]] | None:
    # What follows the size, which is the same for many areas; None if a number is malformed.
    fields = words(rest)
    start = next((at for at, field in enumerate(fields) if field in KINDS or b"=" in field), None)
    caller = b" ".join(fields[:start])
    pages, kinds, nodes = None, [], []
    for field in fields[len(fields) if start is None else start :]:
        count = COUNT.fullmatch(field)
        if count and count[1]:
            nodes.append((int(count[1]), int(count[2])))
        elif count:
            pages = int(count[2])
        elif b"=" not in field:
            kinds.append(decode_name(field))
        elif not field.startswith(b"phys="):
            return None
    if kinds == ["unpurged", "vm_area"]:
        kinds = ["unpurged"]
    return decode_name(caller), pages, tuple(kinds), tuple(nodes)


def read_vmallocinfo() -> list[Area]:
    """Return the areas of vmalloc space, as root; raises SourceUnavailable, BadText.

    Reading takes the locks of vmalloc, a part of the space at a time.
    """
    return parse_vmallocinfo(read_for_all(PATH, "use a kernel built with CONFIG_MMU"))
