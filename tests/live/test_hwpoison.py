"""A page lost to a memory error: only in a virtual machine, for RAM is not given back."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pagewalk.proc.kernel import read_config
from tests.kernel_says import PAGE
from tests.live.command import pagewalk_here

pytestmark = [
    pytest.mark.live,
    pytest.mark.vmshort,
    pytest.mark.skipif("VMTEST_KERNEL" not in os.environ, reason="it costs a page of real RAM"),
]

LOSE_ONE = """
import ctypes, mmap, os, signal, sys
area = mmap.mmap(-1, 16 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(16):
    area[page * mmap.PAGESIZE] = 1
signal.signal(signal.SIGBUS, lambda *_: None)  # the kernel tells at once whose page it was
MADV_HWPOISON = 100  # include/uapi/asm-generic/mman-common.h
address = ctypes.addressof(ctypes.c_char.from_buffer(area)) + 3 * mmap.PAGESIZE
done = ctypes.CDLL(None, use_errno=True).madvise(
    ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), MADV_HWPOISON)
print(done, ctypes.get_errno(), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def victim() -> Iterator[int]:
    assert "CONFIG_MEMORY_FAILURE" in (read_config() or ())
    assert mmap.PAGESIZE == PAGE
    with subprocess.Popen([sys.executable, "-c", LOSE_ONE], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().split()[0] == b"0"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield process.pid
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("source", ["procfs", "ebpf"])
def test_it_is_told_and_explained(victim: int, source: str) -> None:
    ran = pagewalk_here("explain", victim, "--format", "json", "--source", source)
    lines = {line["against"]: line for line in json.loads(ran.out)["ledger"]}
    # smaps counts the entry as its page did, and so does our RSS; the counters do not.
    for against in ("smaps Rss", "smaps_rollup Rss"):
        assert lines[against]["causes"] == []
    causes = {cause["cause"]: cause["bytes"] for cause in lines["status VmRSS"]["causes"]}
    assert causes["hwpoison"] == PAGE
    assert [row for row in lines.values() if row["unexplained"]] == []
    assert ran.code == 0
