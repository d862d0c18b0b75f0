"""DMA buffers of this kernel: one made from a memfd by udmabuf, as debugfs shows it."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagewalk.proc.dma_buffers import read_dma_buffers

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not Path("/dev/udmabuf").exists(), reason="CONFIG_UDMABUF is not set"),
]

DEBUG = Path("/sys/kernel/debug")
CREATE = 0x40187542  # UDMABUF_CREATE, include/uapi/linux/udmabuf.h
SET_NAME = 0x40086201  # DMA_BUF_SET_NAME, include/uapi/linux/dma-buf.h


@contextmanager
def debugfs() -> Iterator[None]:
    """Mount debugfs unless it is there."""
    mounted = (DEBUG / "dma_buf").is_dir()
    if not mounted:
        subprocess.run(["mount", "-t", "debugfs", "none", str(DEBUG)], check=True)
    try:
        yield
    finally:
        if not mounted:
            subprocess.run(["umount", str(DEBUG)], check=True)


@contextmanager
def buffer(size: int) -> Iterator[int]:
    """Make a DMA buffer of ``size`` bytes of a memfd; yield its descriptor."""
    memory = os.memfd_create("dma", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, size)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        device = os.open("/dev/udmabuf", os.O_RDWR)
        try:
            asked = bytearray(struct.pack("<IIQQ", memory, 1, 0, size))
            made = fcntl.ioctl(device, CREATE, asked)  # of bytes it would return a copy
        finally:
            os.close(device)
        try:
            yield made
        finally:
            os.close(made)
    finally:
        os.close(memory)


def test_a_buffer_of_ours_has_its_size_and_its_name() -> None:
    size = 16 * mmap.PAGESIZE
    with debugfs(), buffer(size) as made:
        fcntl.ioctl(made, SET_NAME, b"ours\x1b[1m\0")
        inode = os.fstat(made).st_ino
        (ours,) = [row for row in read_dma_buffers() if row.inode == inode]
        assert (ours.size, ours.exporter, ours.name) == (size, "udmabuf", "ours\x1b[1m")
    # Once it is closed it is freed.
    with debugfs():
        assert inode not in [row.inode for row in read_dma_buffers()]
