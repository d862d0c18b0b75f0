"""What the kernel counts for the whole machine, read together: what we explain."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pagewalk.model.columns import Withheld
from pagewalk.model.errors import SourceUnavailable
from pagewalk.proc import vmstat
from pagewalk.proc.meminfo import read_meminfo
from pagewalk.proc.slabinfo import SlabCache, read_slabinfo
from pagewalk.proc.zones import Zone, read_zones

Told = TypeVar("Told")


class Totals(NamedTuple):
    """The kernel's numbers for the machine; ``None`` where a file could not be read.

    ``meminfo`` in bytes, ``vmstat`` as it says, ``zones`` in pages; ``not_read`` says which were
    not read, and why. ``slabs`` are only read if what each CPU had counted was added before.
    """

    meminfo: dict[str, int] | None
    vmstat: dict[str, int] | None
    zones: list[Zone] | None
    not_read: tuple[str, ...]
    slabs: list[SlabCache] | None = None

    @property
    def withheld(self) -> tuple[Withheld, ...]:
        """Return what was not read."""
        return tuple(Withheld("a counter", why, partial=True) for why in self.not_read)


def read_totals(refresh: bool) -> Totals:
    """Read the kernel's numbers for the machine, one file after the other; raises BadText.

    ``refresh`` asks the kernel to add up first what each CPU has counted; see vmstat.refresh.
    """
    not_read: list[str] = []

    def told(read: Callable[[], Told], *, needed: bool = True) -> Told | None:
        try:
            return read()
        except SourceUnavailable as error:
            if needed:
                not_read.append(str(error))
            return None

    if refresh:
        vmstat.refresh()
    return Totals(
        meminfo=told(read_meminfo),
        vmstat=told(vmstat.read_vmstat),
        zones=told(read_zones),
        not_read=tuple(not_read),
        slabs=told(read_slabinfo, needed=False) if refresh else None,
    )
