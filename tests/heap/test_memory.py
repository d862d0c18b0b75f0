"""Reading only what is in RAM, and how much of ranges runs cover."""

from __future__ import annotations

import ctypes
import mmap
import time
from dataclasses import replace

import numpy as np
import pytest

from pagewalk.heap.memory import Memory, TooLong, bytes_within, copied, live
from pagewalk.model.columns import U64
from tests.heap.built import no_vmas

RUNS = np.array([[0x1000, 0x3000], [0x5000, 0x6000]], np.uint64)


def memory(most: int = 1 << 30) -> Memory:
    """Return memory in which each word is its own address; a read returns at most ``most``."""

    def read(part: memoryview, at: int) -> int:
        end = next(high for low, high in RUNS.tolist() if low <= at < high)
        size = min(len(part), end - at, most)
        part[:size] = np.arange(at, at + size, 8, np.uint64).tobytes()
        return size

    none = np.zeros((0, 2), np.uint64)
    return Memory(no_vmas(), RUNS, RUNS, RUNS, none, read)


def expected(start: int, end: int) -> U64:
    addr = np.arange(start, end, 8, np.uint64)
    return np.where(((addr >= 0x1000) & (addr < 0x3000)) | (addr >= 0x5000) & (addr < 0x6000),
                    addr, np.uint64(0))


@pytest.mark.parametrize(("start", "end"), [
    (0x1000, 0x3000), (0x1008, 0x1010), (0, 0x7000), (0x2FF8, 0x5008), (0x3000, 0x5000),
])
@pytest.mark.parametrize("most", [1 << 30, 4096])
def test_what_is_not_in_ram_reads_as_zeros(start: int, end: int, most: int) -> None:
    assert (memory(most).words(start, end) == expected(start, end)).all()


def test_what_is_covered_is_read_and_what_is_not_stays_as_it_is() -> None:
    found = memory()
    assert found.covers(0x1000, 0x3000) and found.covers(0x5008, 0x5010)
    assert not any(found.covers(*ends) for ends in ((0xFF8, 0x1010), (0x2000, 0x5010), (0, 8)))
    words = found.fill(np.full(0x7000 // 8, 7, np.uint64), 0)
    some = expected(0, 0x7000)
    assert (words == np.where(some > 0, some, 7)).all()


def test_a_copy_is_what_was_there() -> None:
    asked = np.array([[0x2000, 0x5800]], np.uint64)
    found = copied(memory(), asked)
    words = found.words(0, 0x7000)
    inside = np.arange(0, 0x7000, 8, np.uint64)
    kept = (inside >= 0x2000) & (inside < 0x5800)
    assert (words == np.where(kept, expected(0, 0x7000), 0)).all()


def test_a_reader_stops_in_time_and_what_is_unmapped_reads_as_zeros() -> None:
    with mmap.mmap(-1, 3 * 4096) as area, open("/proc/self/mem", "rb", buffering=0) as file:
        area[:] = b"x" * len(area)
        at = ctypes.addressof(ctypes.c_char.from_buffer(area))
        ctypes.CDLL(None).munmap(ctypes.c_void_p(at + 4096), ctypes.c_size_t(4096))
        runs = np.array([[at, at + 3 * 4096]], np.uint64)
        now = replace(memory(), readable=runs, read=live(file.fileno()))
        words = now.words(at, at + 3 * 4096)
        late = replace(memory(), readable=runs, read=live(file.fileno(), time.monotonic_ns() - 1))
        with pytest.raises(TooLong):
            copied(late, runs)
    assert words[:512].tobytes() == words[1024:].tobytes() == b"x" * 4096
    assert not words[512:1024].any()


@pytest.mark.parametrize(("ranges", "covered"), [
    ([], 0), ([[0, 0x1000]], 0), ([[0, 0x9000]], 0x3000), ([[0x2000, 0x5001]], 0x1001),
    ([[0x5800, 0x5900], [0x1000, 0x1001]], 0x101),
])
def test_covered_bytes(ranges: list[list[int]], covered: int) -> None:
    assert bytes_within(np.array(ranges, np.uint64).reshape(-1, 2), RUNS) == covered
    many = np.repeat(np.array([[0, 0x9000]], np.uint64), (1 << 16) + 1, axis=0)
    assert bytes_within(many, RUNS) == 0x3000 * len(many)
    nothing = replace(memory(), readable=np.zeros((0, 2), np.uint64))
    assert bytes_within(np.array(ranges, np.uint64).reshape(-1, 2), nothing.readable) == 0
