"""Kernel memory by name, written by hand."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.bpf_maps import BpfMap
from pagewalk.kernel.structs.vmap_areas import AreaSums, Use
from pagewalk.model.columns import Withheld
from pagewalk.proc.dma_buffers import DmaBuffer
from pagewalk.system.kernel_memory import KernelMemory
from pagewalk.system.slabs import Cache, Charge, SlabReport

MIB = 1 << 20
WEB = "/docker/" + 64 * "a"
KNOWN = {WEB: "container web"}
DENTRY = Cache(
    "dentry", size=MIB, each=192, slabs=256, places=5376, least=5000, most=5100, reclaimable=True,
    charges=(Charge("/a\x1b[1m", 4000, 4000 * 200), Charge(None, 1, 200)),
)
FILP = Cache(
    "filp", size=MIB // 2, each=256, slabs=128, places=2048, least=2048, most=2048,
    reclaimable=False, charges=(Charge(WEB, 1024, 1024 * 264),),
)
SLABS = SlabReport((DENTRY, FILP), large=8192, unread=0, withheld=())


def asked(*rows: tuple[Use, int, int, str | None]) -> AreaSums:
    """Return who asked for memory, each (use, areas, pages, caller)."""
    use, areas, pages, caller = zip(*rows, strict=True)
    return AreaSums(np.array([one.value for one in use], np.uint8), np.array(areas),
                    np.array(pages), caller)


KERNEL = KernelMemory(
    SLABS, 4096,
    asked((Use.VMALLOC, 3, 512, "htab_map_alloc"), (Use.IOREMAP, 1, 400, "ioremap"),
          (Use.STACK, 9, 36, None)),
    (BpfMap(7, "conns", 1, 2 * MIB), BpfMap(8, "", 2, None)),
    (DmaBuffer(41, MIB, "udmabuf", "surface"),),
    (Withheld("who asked for kernel memory, by name", "hidden\nrun as root", partial=True),),
)
