"""A page lost to a memory error: only in a virtual machine, because the RAM stays lost."""

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
from tests.kernel_says import PAGE, read_smaps, vma_at
from tests.live.bracket import working_sources
from tests.live.command import pagewalk_here
from tests.machine import IN_GUEST

pytestmark = [
    pytest.mark.live,
    pytest.mark.vmshort,
    pytest.mark.skipif(not IN_GUEST, reason="it costs a page of real RAM"),
]

SOURCES = [source for source in ("procfs", "ebpf") if source in working_sources()]

LOSE_ONE = """
import ctypes, mmap, os, signal, sys
if sys.argv[1] == "anonymous":
    area = mmap.mmap(-1, 16 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
else:
    os.ftruncate(memfd := os.memfd_create("lost"), 16 * mmap.PAGESIZE)
    area = mmap.mmap(memfd, 16 * mmap.PAGESIZE)
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


# The fields of smaps that the entry may be in, by our name.
FIELDS = {
    "Rss": "rss", "Pss": "pss", "Pss_Dirty": "pss_dirty", "Shared_Clean": "shared_clean",
    "Shared_Dirty": "shared_dirty", "Private_Clean": "private_clean",
    "Private_Dirty": "private_dirty", "Referenced": "referenced", "LazyFree": "lazyfree",
    "Swap": "swap", "Locked": "locked",
}


@pytest.fixture(params=["anonymous", "memfd"])
def victim(request: pytest.FixtureRequest) -> Iterator[int]:
    assert "CONFIG_MEMORY_FAILURE" in (read_config() or ())
    assert mmap.PAGESIZE == PAGE
    words = [sys.executable, "-c", LOSE_ONE, request.param]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().split()[0] == b"0"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield process.pid
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("source", SOURCES)
def test_it_is_reported_and_explained(victim: int, source: str) -> None:
    ran = pagewalk_here("explain", victim, "--format", "json", "--source", source)
    lines = {line["against"]: line for line in json.loads(ran.out)["ledger"]}
    # Our RSS counts it if this kernel's smaps does; the counters do not.
    for against in ("smaps Rss", "smaps_rollup Rss"):
        assert lines[against]["causes"] == []
    (lost,) = [vma for vma in read_smaps(victim) if vma.fields["Rss"] in (60, 64)
               and vma.fields["Size"] == 64 and "nh" in vma.flags]
    causes = {cause["cause"]: cause["bytes"] for cause in lines["status VmRSS"]["causes"]}
    assert causes.get("hwpoison", 0) == (PAGE if lost.fields["Rss"] == 64 else 0)
    assert [row for row in lines.values() if row["unexplained"]] == []
    assert ran.code == 0


@pytest.mark.parametrize("options", [("--all",), ("--counts",)], ids=" ".join)
@pytest.mark.parametrize("source", SOURCES)
def test_each_field_of_its_vma_equals_smaps(
    victim: int, source: str, options: tuple[str, ...]
) -> None:
    ran = pagewalk_here("maps", victim, *options, "--format", "json", "--source", source)
    (ours,) = [vma for vma in json.loads(ran.out)["vmas"] if vma["poisoned"]]
    said = vma_at(read_smaps(victim), int(ours["start"], 16)).fields
    assert ours["poisoned"] == PAGE
    assert ours["rss"] == said["Rss"] << 10
    told = {field: ours[name] for field, name in FIELDS.items() if ours.get(name) is not None}
    assert told == {field: said[field] << 10 for field in told}
    assert len(told) >= (2 if options == ("--counts",) else len(FIELDS) if source == "ebpf" else 4)
