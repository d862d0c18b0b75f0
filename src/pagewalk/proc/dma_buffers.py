"""DMA buffers: memory that drivers share with one another and with processes, each by its exporter.

It may be of any kind: a graphics card's, pages of the kernel, or (udmabuf) those of a memfd. So a
size here is not an amount of RAM beside the others.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.proc.files import decode_name, number, read_bytes

SYSFS = "/sys/kernel/dmabuf/buffers"  # CONFIG_DMABUF_SYSFS_STATS
DEBUGFS = "/sys/kernel/debug/dma_buf/bufinfo"
# "00004096\t00080002\t00080007\t00000002\tudmabuf\t00000007\t<none>" (dma_buf_debug_show,
# drivers/dma-buf/dma-buf.c). A process chooses the name, of at most 31 bytes; it may hold newlines,
# but is too short for a line like this one.
LINE = re.compile(
    rb"(?m)^(\d{8,20})\t[0-9a-f]{8,16}\t[0-9a-f]{8,16}\t\d{8,20}\t([^\t\n]*)\t(\d{8,20})\t([^\n]*)\n"
)
TOTAL = re.compile(rb"\nTotal (\d{1,10}) objects, (\d{1,20}) bytes\n\Z")


class DmaBuffer(NamedTuple):
    """One buffer of ``size`` bytes; ``exporter`` is the driver that it is from.

    ``inode`` is that of its file, as in /proc/PID/fdinfo and maps. ``name`` is what a process
    called it, "" if none did or the kernel does not say.
    """

    inode: int
    size: int
    exporter: str
    name: str


def parse_bufinfo(text: bytes) -> list[DmaBuffer]:
    """Return the buffers in debugfs's bufinfo, in file order; raises BadText.

    They must be as many, and as large, as its last line says.
    """
    found = [
        DmaBuffer(int(inode), int(size), decode_name(exporter),
                  decode_name(name if name != b"<none>" else b""))
        for size, exporter, inode, name in LINE.findall(text)
    ]  # fmt: skip
    total = TOTAL.search(text)
    says = total and (int(total[1]), int(total[2]))
    if says != (len(found), sum(row.size for row in found)):
        raise BadText("bufinfo", text.count(b"\n") or 1, text.rstrip(b"\n").rpartition(b"\n")[2])
    return found


def read_dma_buffers() -> list[DmaBuffer]:
    """Return every DMA buffer of this machine; raises SourceUnavailable, BadText.

    From sysfs, as any user, if the kernel has them there; else from debugfs, as root.
    """
    with suppress(OSError):
        return list_sysfs(SYSFS)
    try:
        return parse_bufinfo(read_bytes(DEBUGFS))
    except PermissionError as error:
        why = f"cannot read {DEBUGFS}: {error.strerror}"
        raise SourceUnavailable("DMA buffers", why, "run as root") from error
    except OSError as error:
        why = f"neither {SYSFS} nor {DEBUGFS} is there"
        remedy = "mount -t debugfs none /sys/kernel/debug, or use a kernel that has them"
        raise SourceUnavailable("DMA buffers", why, remedy) from error


def list_sysfs(folder: str) -> list[DmaBuffer]:
    found = []
    for entry in sorted(os.listdir(folder)):
        with suppress(OSError, ValueError):  # freed meanwhile
            size = number(read_bytes(f"{folder}/{entry}/size").removesuffix(b"\n"))
            exporter = read_bytes(f"{folder}/{entry}/exporter_name").removesuffix(b"\n")
            found.append(DmaBuffer(int(entry), size, decode_name(exporter), ""))
    return found
