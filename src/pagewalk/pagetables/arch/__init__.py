"""The paging formats, by the machine's name (uname -m).

Takes what a running kernel says of itself: levels, address width, era.
Gives one subclass of Arch: sizes, eras, the decoding of entries, the name of each bit.
Not here: loops over tables, which are the same for every architecture.
"""

from __future__ import annotations

from pagewalk.pagetables.arch.x86_64 import X86
from pagewalk.pagetables.format import Arch

ARCHES: dict[str, type[Arch]] = {
    X86.name: X86,
}
