"""Device memory: a persistent-memory disk, and its files mapped without the page cache.

Only in a guest that vmtest boots with such memory ("6.1-pmem", "6.12-pmem"): there it is a part of
RAM, reserved by the kernel's memmap=SIZE!START, above the rest of RAM.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pagewalk
from pagewalk.proc.kernel import release
from tests.live.bracket import compare, working_sources
from tests.live.command import pagewalk_here

DEVICE = Path("/dev/pmem0")
MIB = 1 << 20
ONE_A_HUGE_ENTRY = ("Rss", "Pss", "Private", "rollup Rss", "rollup Pss")

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not os.environ.get("VMTEST_KERNEL", "").endswith("-pmem"),
        reason="needs a kernel that was booted with persistent memory: vmtest's 6.12-pmem",
    ),
]

# Maps 4 MiB of a file at an address where huge entries can map it, and the same shifted by a page,
# where they cannot; writes one page through a private mapping, which makes it anonymous.
MAP = f"""
import ctypes, mmap, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
PAGE, FIXED = mmap.PAGESIZE, 0x100000
fd = os.open(sys.argv[1], os.O_RDWR)
def place(address, size, how, offset):
    got = libc.mmap(address, size, 3, how | FIXED, fd, offset)
    assert got == address, ctypes.get_errno()
    return (ctypes.c_char * size).from_address(address)
aligned = place(0x10000000000, {4 * MIB}, mmap.MAP_SHARED, 0)
shifted = place(0x10010000000 + PAGE, {2 * MIB}, mmap.MAP_SHARED, 0)
private = place(0x10020000000 + PAGE, 16 * PAGE, mmap.MAP_PRIVATE, 0)
for area in (aligned, shifted):
    for at in range(0, len(area), PAGE):
        area[at] = b"x"
for at in range(0, len(private), PAGE):
    private[at]
private[0] = b"y"
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def run(*argv: object) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True)


@pytest.fixture(scope="module")
def dax_file() -> Iterator[Path]:
    for module in ("nd_e820", "nd_pmem", "ext4"):
        run("modprobe", module)
    deadline = time.monotonic() + 60
    while not DEVICE.exists():
        assert time.monotonic() < deadline, f"no {DEVICE} after modprobe"
        time.sleep(0.1)
    run("mkfs.ext4", "-q", "-b", 4096, "-E", "stride=512,stripe_width=512", DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        run("mount", "-o", "dax=always", DEVICE, folder)
        try:
            file = Path(folder) / "data"
            with file.open("wb") as out:
                os.posix_fallocate(out.fileno(), 0, 4 * MIB)
            yield file
        finally:
            run("umount", folder)


@pytest.fixture(scope="module")
def mapper(dax_file: Path) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", MAP, dax_file], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield process.pid
        finally:
            process.send_signal(signal.SIGKILL)


def test_zoneinfo_shows_a_device_zone_without_a_start(dax_file: Path) -> None:
    zones = Path("/proc/zoneinfo").read_text().split("Node ")
    (device,) = [zone for zone in zones if zone.startswith("0, zone   Device")]
    assert "spanned  0" not in device
    assert "start_pfn" not in device


def test_auto_is_the_best_source(mapper: int) -> None:
    source = pagewalk.open_process(mapper)
    assert source.name == "ebpf"
    pagewalk.close(source)


@pytest.mark.parametrize("source", working_sources())
def test_it_equals_smaps(mapper: int, source: str) -> None:
    compared = compare(mapper, source)
    # Up to 6.5 smaps counts one page of each huge entry, of which there are two.
    wrong = {(row.field, row.theirs - (row.ours or 0)) for row in compared.wrong}
    assert wrong <= ({(name, 8) for name in ONE_A_HUGE_ENTRY} if release() < (6, 6) else set())
    assert not compared.table.totals["doubt"]


@pytest.mark.parametrize("source", working_sources())
def test_explain_leaves_nothing_unexplained(mapper: int, source: str) -> None:
    ran = pagewalk_here("explain", mapper, "--source", source)
    assert ran.code == 0, ran.out


def test_vtop_follows_it(mapper: int) -> None:
    for address in ("10000000000", "10010001000", "10020001000", "10020002000"):
        ran = pagewalk_here("vtop", mapper, address)
        assert ran.code == 0, ran.out
        assert "doubt" not in ran.out
