"""What the tests in this folder read: the running kernel, opened once, and a core file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from pagewalk.kernel.frames import open_frame_map
from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.readers.kcore import KcoreMemory
from pagewalk.kernel.running import bounded
from pagewalk.kernel.structs.direct_map import DirectMap, MemMap, find_direct_map, find_mem_map
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.struct_page import FrameMap
from pagewalk.kernel.structs.zero import find_zero_frames
from pagewalk.pagetables.format import Arch
from pagewalk.proc.frames import Frames, open_frames
from tests.kernel.core_file import HIGH, HIGH_DATA, INFO, LOW, LOW_DATA, core, note


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with closing(open_bpf()) as opened:
        yield opened


@pytest.fixture(scope="module")
def direct_map(kernel: Kernel) -> DirectMap:
    return find_direct_map(kernel)


@pytest.fixture(scope="module")
def mem_map(kernel: Kernel, direct_map: DirectMap) -> MemMap:
    return find_mem_map(kernel, direct_map)


@pytest.fixture(scope="module")
def frames(
    kernel: Kernel, direct_map: DirectMap, mem_map: MemMap, kpage: Frames
) -> FrameMap:
    return open_frame_map(kernel, mem_map, find_zero_frames(kernel, direct_map, kpage.flags))


@pytest.fixture(scope="module")
def arch(direct_map: DirectMap) -> Arch:
    return bounded(direct_map.arch)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KcoreMemory]:
    path = tmp_path_factory.mktemp("kcore") / "core"
    notes = note(b"CORE", b"prstatus") + note(b"VMCOREINFO", INFO)
    path.write_bytes(core([(HIGH, HIGH_DATA), (LOW, LOW_DATA)], notes))
    with closing(KcoreMemory(str(path))) as opened:
        yield opened


@pytest.fixture(scope="module")
def kpage() -> Iterator[Frames]:
    opened = open_frames()
    yield opened
    opened.close()
