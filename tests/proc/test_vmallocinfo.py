"""/proc/vmallocinfo, on lines written by hand and on this machine."""

from __future__ import annotations

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.vmallocinfo import Area, parse_vmallocinfo
from tests.samples import VMALLOCINFO


def test_an_area_has_a_size_a_caller_and_what_it_is_for() -> None:
    assert parse_vmallocinfo(VMALLOCINFO) == [
        Area(20480, "irq_init_percpu_irqstack+0xca/0x100", None, ("vmap",), ()),
        Area(8192, "acpi_os_map_iomem+0x1bc/0x1e0", None, ("ioremap",), ()),
        Area(20480, "kernel_clone+0x94/0x3e0", 4, ("vmalloc",), ((0, 1), (1, 3))),
        Area(8392704, "xz_dec_init+0x9/0x90 [xz_dec]", 2048, ("vmalloc", "vpages"), ((0, 2048),)),
        Area(69632, "", 16, ("user",), ()),
        Area(4096, "", None, ("vm_map_ram",), ()),
        Area(1064960, "", None, ("unpurged",), ()),
        Area(12288, "0x00000000deadbeef", 2, ("vmalloc",), ((0, 2),)),
        Area(8192, "", None, (), ()),
    ]


@pytest.mark.parametrize(
    "line", [b"\n", b"0x1-0x2\n", b"0x1-0x2 -1 vmap\n", b"0x1-0x2 4096 f+0x1/0x2 pages=x vmap\n",
             b"0x1-0x2 4096 f+0x1/0x2 vmap N0=\n", b"0x1-0x2 4096 f+0x1/0x2 vmap"],
)
def test_an_invalid_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="of vmallocinfo"):
        parse_vmallocinfo(VMALLOCINFO + line)
