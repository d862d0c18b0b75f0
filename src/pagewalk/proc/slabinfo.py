"""/proc/slabinfo: the slab caches of the kernel, as root."""

import re
from typing import NamedTuple

from pagewalk.proc.files import decode_name, read_for_all, rows
from pagewalk.proc.pagemap import PAGE

PATH = "/proc/slabinfo"
# "dentry  104622 104622 192 21 1 : tunables 0 0 0 : slabdata 4982 4982 0", after two lines of
# headings (mm/slab_common.c, cache_show)
LINE = re.compile(
    rb"(?m)^(?:(?:slabinfo - |# name )[^\n]*|([^\n]+?) +(\d{1,20}) +(\d{1,20}) +(\d{1,10})"
    rb" +(\d{1,10}) +(\d{1,10}) : tunables [^:\n]*: slabdata +(\d{1,20}) +(\d{1,20}) [^\n]*)\n"
)


class SlabCache(NamedTuple):
    """One cache: ``objects`` of ``size`` bytes each in ``slabs``, as the kernel counts them.

    ``active`` are the objects in use, and those that are free in a slab that a CPU allocates from.
    A new slab holds ``per_slab`` objects and has ``pages_per_slab`` pages; when memory was short it
    may have been given fewer. Caches that were merged have one line.
    """

    name: str
    active: int
    objects: int
    size: int
    per_slab: int
    pages_per_slab: int
    active_slabs: int
    slabs: int

    @property
    def most(self) -> int:
        """Return how many bytes its slabs are at most."""
        return self.slabs * self.pages_per_slab * PAGE


def parse_slabinfo(text: bytes) -> list[SlabCache]:
    """Return the caches in a slabinfo file, in file order; raises BadText."""
    found = rows(LINE, text, "slabinfo")
    return [SlabCache(decode_name(name), *map(int, counts)) for name, *counts in found if name]


def read_slabinfo() -> list[SlabCache]:
    """Return the slab caches of this kernel, as root; raises SourceUnavailable, BadText."""
    return parse_slabinfo(read_for_all(PATH, "use a kernel built with CONFIG_SLUB_DEBUG"))
