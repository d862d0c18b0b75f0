"""Our THPeligible is that of smaps under every setting of this machine."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import pagewalk
from pagewalk.kernel.thp_eligible import KNOWN
from pagewalk.proc.kernel import release
from pagewalk.sources.particulars import read_particulars
from tests.kernel_says import read_smaps
from tests.live.bracket import working_sources
from tests.machine import MM, alone, setting

WORKING = [name for name in working_sources() if name != "procfs"]
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not KNOWN[0] <= release() <= KNOWN[1], reason="the rule is not known"),
]
THP = MM / "transparent_hugepage"

# Maps anonymous, shared anonymous and memfd memory of several sizes, at the start of a huge page
# and one page after it, without advice, advised and advised against; and a file.
MAP = """
import ctypes, mmap, os, signal, sys, tempfile
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PAGE, FIXED, MIB = mmap.PAGESIZE, 0x100000, 1 << 20
memfd = os.memfd_create("some")
os.ftruncate(memfd, 8 * MIB)
file, named = tempfile.TemporaryFile(), tempfile.NamedTemporaryFile(dir="/dev/shm")
file.truncate(8 * MIB)
named.truncate(8 * MIB)
at = 0x200000000000
for fd, how in ((-1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
                (-1, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS),
                (memfd, mmap.MAP_SHARED), (memfd, mmap.MAP_PRIVATE),
                (named.fileno(), mmap.MAP_SHARED), (file.fileno(), mmap.MAP_SHARED)):
    for size in (PAGE, 2 * PAGE, 16 * PAGE, 2 * MIB - PAGE, 2 * MIB, 4 * MIB):
        for shift in (0, PAGE):
            for offset in (0,) if fd < 0 else (0, PAGE):
                for advice in (None, mmap.MADV_HUGEPAGE, mmap.MADV_NOHUGEPAGE):
                    at += 16 * MIB
                    got = libc.mmap(at + shift, size, 3, how | FIXED, fd, offset)
                    assert got == at + shift, ctypes.get_errno()
                    if advice is not None:
                        assert libc.madvise(got, size, advice) == 0, ctypes.get_errno()
if len(sys.argv) > 1:
    done = libc.prctl(41, 1, int(sys.argv[1]), 0, 0)  # PR_SET_THP_DISABLE
    if done:
        print(ctypes.get_errno(), flush=True)
        sys.exit()
print("ready", flush=True)
os.unlink(named.name)  # after it was mapped: to the kernel it still has a name
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture(scope="module", params=["", "0", "2"], ids=["", "disabled", "unless-advised"])
def mapper(request: pytest.FixtureRequest) -> Iterator[int]:
    words = [sys.executable, "-c", MAP, *([request.param] if request.param else [])]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                pytest.skip("this kernel cannot (since 6.18)")
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield process.pid
        finally:
            process.send_signal(signal.SIGKILL)


def by_size(kib: int, name: str) -> Path:
    return THP / f"hugepages-{kib}kB" / name


SETTINGS = [
    {THP / "enabled": "always"},
    {THP / "enabled": "never"},
    {THP / "enabled": "madvise", by_size(64, "enabled"): "always"},
    {THP / "enabled": "madvise", by_size(64, "enabled"): "inherit",
     by_size(2048, "enabled"): "never"},
    {THP / "enabled": "never", by_size(16, "enabled"): "madvise"},
    {THP / "shmem_enabled": "advise"},
    {THP / "shmem_enabled": "always"},
    {THP / "shmem_enabled": "deny"},
    {THP / "shmem_enabled": "force"},
    {THP / "shmem_enabled": "within_size"},
    {THP / "shmem_enabled": "never", by_size(64, "shmem_enabled"): "always"},
    {THP / "shmem_enabled": "always", by_size(64, "shmem_enabled"): "inherit"},
    {THP / "shmem_enabled": "never", by_size(8, "shmem_enabled"): "advise"},
    {THP / "shmem_enabled": "never", by_size(64, "shmem_enabled"): "within_size"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=[
    ",".join(f"{p.parent.name[10:]}{p.name}={v}" for p, v in row.items()) for row in SETTINGS
])
def test_thp_eligible_is_that_of_smaps(mapper: int, settings: dict[Path, str]) -> None:
    if not all(path.exists() for path in settings):
        pytest.skip("this kernel has no settings by size")
    assert mmap.PAGESIZE == 4096
    with ExitStack() as stack:
        stack.enter_context(alone())
        for path, value in settings.items():
            stack.enter_context(setting(path, value))
        said = {vma.start: vma.fields["THPeligible"] for vma in read_smaps(mapper)}
        for name in WORKING:
            source = pagewalk.open_process(mapper, name)
            vmas = source.vmas()
            found, _ = read_particulars(source, vmas)
            pagewalk.close(source)
            ours = {int(start): found.of(row)[1] for row, start in enumerate(vmas.start)}
            assert ours.keys() == said.keys()
            # Whether an object is large enough for its pages is not checked.
            open_ones = {start for start, value in ours.items() if value is None}
            assert not open_ones or "within_size" in settings.values()
            wrong = {hex(a): (ours[a], said[a]) for a in said if ours[a] not in (None, said[a])}
            assert wrong == {}
