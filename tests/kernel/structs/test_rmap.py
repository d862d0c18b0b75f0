"""Which VMAs have pages of one process only, for a process that shares and stops sharing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest

import pagewalk
from pagewalk.kernel.structs.rmap import unshared
from pagewalk.kernel.structs.vmas import read_vmas
from pagewalk.model.columns import U64, VMAs
from pagewalk.proc.kernel import release
from pagewalk.sources.kernel import KernelSource
from tests.live.bracket import look_again

pytestmark = pytest.mark.live

VM_MERGEABLE = 0x8000_0000  # include/linux/mm.h

# Maps 8 MiB of each kind, prints the addresses, and obeys commands, one per line.
SHARER = """
import ctypes, json, mmap, os, signal, sys, tempfile
size = 8 << 20
file = tempfile.TemporaryFile()
file.truncate(size)
private = mmap.MAP_PRIVATE
maps = {
    "anon": mmap.mmap(-1, size, flags=private | mmap.MAP_ANONYMOUS),
    "shared": mmap.mmap(-1, size),
    "file": mmap.mmap(file.fileno(), size, flags=private),
    "untouched": mmap.mmap(-1, size, flags=private | mmap.MAP_ANONYMOUS),
}
for name, map in maps.items():
    if name != "untouched":
        map[:] = b"x" * size
places = {n: ctypes.addressof(ctypes.c_char.from_buffer(m)) for n, m in maps.items()}
print(json.dumps(places), flush=True)
child = 0
for line in sys.stdin:
    if line == "fork\\n":
        child = os.fork()
        if not child:
            signal.pause()
    elif line == "end\\n":
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    else:
        maps["anon"].madvise(getattr(mmap, line.strip()))
    print(child, flush=True)
"""


class Sharer(NamedTuple):
    """The process, and the addresses of its memory."""

    process: subprocess.Popen[str]
    places: dict[str, int]

    def tell(self, what: str) -> int:
        """Make it do ``what``; return the pid of its child."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture
def sharer() -> Iterator[Sharer]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SHARER]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            yield Sharer(process, json.loads(process.stdout.readline()))
        finally:
            process.kill()


def row_of(start: U64, place: int) -> int:
    return int(np.searchsorted(start, place, "right")) - 1


def alone(pid: int, places: dict[str, int]) -> dict[str, bool]:
    source = pagewalk.open_process(pid, "ebpf")
    assert isinstance(source, KernelSource)
    kernel = source.running.kernel
    vmas = read_vmas(kernel, source.mm)
    mask = unshared(kernel, vmas)
    pagewalk.close(source)
    return {name: bool(mask[row_of(vmas.start, at)]) for name, at in places.items()}


def check_alone(pid: int, places: dict[str, int]) -> None:
    assert alone(pid, places) == dict.fromkeys(places, True)


def test_only_touched_anonymous_memory_is_known_to_be_unshared(sharer: Sharer) -> None:
    # The kernel may merge the untouched memory with its neighbour into one VMA.
    told = alone(sharer.process.pid, sharer.places)
    del told["untouched"]
    assert told == {"anon": True, "shared": False, "file": False}


def test_memory_that_a_child_shares_is_not_unshared(sharer: Sharer) -> None:
    anon = {"anon": sharer.places["anon"]}
    child = sharer.tell("fork")
    assert alone(sharer.process.pid, anon) == {"anon": False}
    assert alone(child, anon) == {"anon": False}
    sharer.tell("end")
    # Another process that is reading the dead child's smaps keeps its memory alive.
    look_again(lambda: check_alone(sharer.process.pid, anon))


def test_memory_that_ksm_may_merge_is_not_unshared(sharer: Sharer) -> None:
    anon = {"anon": sharer.places["anon"]}
    sharer.tell("MADV_MERGEABLE")
    assert alone(sharer.process.pid, anon) == {"anon": False}
    sharer.tell("MADV_UNMERGEABLE")
    assert alone(sharer.process.pid, anon) == {"anon": True}


def read_twice(source: KernelSource) -> VMAs:
    before = source.vmas()
    again = source.vmas()
    assert source.changed(before) == source.changed(again) == 0
    if release() >= (6, 13):  # mm_lock_seq shows that nothing changed; khugepaged raises it too
        assert again is before
    return again


def test_vmas_are_read_again_after_a_change(sharer: Sharer) -> None:
    source = pagewalk.open_process(sharer.process.pid, "ebpf")
    before = look_again(lambda: read_twice(source))
    sharer.tell("MADV_MERGEABLE")
    after = source.vmas()
    pagewalk.close(source)
    flags = [
        int(vmas.flags[row_of(vmas.start, sharer.places["anon"])])
        for vmas in (before, after)
        if vmas.flags is not None
    ]
    assert [flag & VM_MERGEABLE for flag in flags] == [0, VM_MERGEABLE]
