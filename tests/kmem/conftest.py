"""What the tests in this folder read: the running kernel, opened once, and a core file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pagewalk.kmem.directmap import DirectMap, MemMap, find_direct_map, find_mem_map
from pagewalk.kmem.frames import open_frame_map
from pagewalk.kmem.kcore import KcoreMemory
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.live import open_bpf
from pagewalk.kmem.machine import paging_format
from pagewalk.kmem.struct_page import FrameMap
from pagewalk.kmem.zero import find_zero_frames
from pagewalk.paging import Arch
from pagewalk.proc.frames import Frames, open_frames
from tests.kmem.core_file import HIGH, HIGH_DATA, INFO, LOW, LOW_DATA, core, note


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with open_bpf() as opened:
        yield opened


@pytest.fixture(scope="module")
def direct_map(kernel: Kernel) -> DirectMap:
    return find_direct_map(kernel)


@pytest.fixture(scope="module")
def mem_map(kernel: Kernel, direct_map: DirectMap) -> MemMap:
    return find_mem_map(kernel, direct_map)


@pytest.fixture(scope="module")
def frames(kernel: Kernel, direct_map: DirectMap, mem_map: MemMap) -> FrameMap:
    return open_frame_map(kernel, mem_map, find_zero_frames(kernel, direct_map))


@pytest.fixture(scope="module")
def arch(direct_map: DirectMap) -> Arch:
    return paging_format(direct_map)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KcoreMemory]:
    path = tmp_path_factory.mktemp("kcore") / "core"
    notes = note(b"CORE", b"prstatus") + note(b"VMCOREINFO", INFO)
    path.write_bytes(core([(HIGH, HIGH_DATA), (LOW, LOW_DATA)], notes))
    with KcoreMemory(str(path)) as opened:
        yield opened


@pytest.fixture(scope="module")
def kpage() -> Iterator[Frames]:
    opened = open_frames()
    yield opened
    opened.close()
