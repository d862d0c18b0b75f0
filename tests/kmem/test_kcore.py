"""/proc/kcore as a reader, on core files built by hand; and reads that work with any reader."""

from __future__ import annotations

import errno
import os
import re
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.errors import SourceUnavailable
from pagewalk.kmem.kcore import KcoreMemory, parse_vmcoreinfo
from pagewalk.kmem.memory import (
    element_batches,
    page_batches,
    read_bytes,
    read_elements,
    read_pages,
    read_structs,
    read_word,
    read_words,
)
from tests.kmem.core_file import core, note

LOW, HIGH = 0xFFFF888000000000, 0xFFFFEA0000000000
RANDOM = np.random.default_rng(1)
# Two pages and a bit at LOW, three pages at HIGH; the file holds HIGH first, as kcore may.
LOW_DATA = RANDOM.bytes(2 * 4096 + 100)
HIGH_DATA = RANDOM.bytes(3 * 4096)
INFO = b"OSRELEASE=6.1.0\nNUMBER(pgtable_l5_enabled)=1\nnonsense\n"


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> KcoreMemory:
    path = tmp_path_factory.mktemp("kcore") / "core"
    notes = note(b"CORE", b"prstatus") + note(b"VMCOREINFO", INFO)
    path.write_bytes(core([(HIGH, HIGH_DATA), (LOW, LOW_DATA)], notes))
    return KcoreMemory(str(path))


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def test_segments_are_sorted(memory: KcoreMemory) -> None:
    assert memory.segments.start.tolist() == [LOW, HIGH]
    assert memory.segments.end.tolist() == [LOW + len(LOW_DATA), HIGH + len(HIGH_DATA)]


def test_vmcoreinfo(memory: KcoreMemory) -> None:
    assert memory.vmcoreinfo == {"OSRELEASE": "6.1.0", "NUMBER(pgtable_l5_enabled)": "1"}
    assert parse_vmcoreinfo(b"") == {}
    assert parse_vmcoreinfo(note(b"CORE", b"x" * 13)) == {}


def test_read_bytes_over_several_pages(memory: KcoreMemory) -> None:
    assert read_bytes(memory, LOW + 50, len(LOW_DATA) - 50) == LOW_DATA[50:]
    assert read_word(memory, HIGH + 8) == int.from_bytes(HIGH_DATA[8:16], "little")


@pytest.mark.parametrize(
    "address", [0, LOW - 1, LOW + len(LOW_DATA) - 3, HIGH + len(HIGH_DATA), (1 << 64) - 1, -1]
)
def test_an_address_outside_every_segment_is_efault(memory: KcoreMemory, address: int) -> None:
    with pytest.raises(OSError, match="cannot be read") as caught:
        read_bytes(memory, address, 4)
    assert caught.value.errno == errno.EFAULT


def test_each_request_has_its_own_errno(memory: KcoreMemory) -> None:
    words, errors = read_words(memory, u64(HIGH, 0, LOW, HIGH + len(HIGH_DATA) - 4, HIGH + 16))
    assert errors.tolist() == [0, errno.EFAULT, 0, errno.EFAULT, 0]
    assert words[0].tobytes() == HIGH_DATA[:8]
    assert words[2].tobytes() == LOW_DATA[:8]
    assert words[4].tobytes() == HIGH_DATA[16:24]


def test_pages_in_any_order(memory: KcoreMemory) -> None:
    words, errors = read_pages(memory, u64(HIGH + 8192, LOW, LOW + 8192, HIGH))
    assert errors.tolist() == [0, 0, errno.EFAULT, 0]
    assert words.shape == (4, 512)
    assert words[0].tobytes() == HIGH_DATA[8192:]
    assert words[1].tobytes() == LOW_DATA[:4096]
    assert words[3].tobytes() == HIGH_DATA[:4096]


def test_many_pages_come_in_batches(memory: KcoreMemory) -> None:
    addresses = np.resize(u64(HIGH, HIGH + 4096, LOW), 700)
    rows = 0
    for first, words, errors in page_batches(memory, addresses):
        assert first == rows
        assert not errors.any()
        for row in (0, len(words) - 1):
            expected = read_bytes(memory, int(addresses[first + row]), 4096)
            assert words[row].tobytes() == expected
        rows += len(words)
    assert rows == 700
    assert read_pages(memory, addresses)[0].shape == (700, 512)


def test_without_requests_there_are_no_answers(memory: KcoreMemory) -> None:
    none = u64()
    assert read_words(memory, none)[0].shape == (0,)
    assert read_pages(memory, none)[0].shape == (0, 512)
    assert read_elements(memory, HIGH, none, 64)[0].shape == (0, 64)
    assert read_bytes(memory, HIGH, 0) == b""


@settings(deadline=None)
@given(
    st.sampled_from([1, 8, 24, 56, 64, 96, 1000, 4096]),
    st.integers(0, 80),
    st.lists(st.integers(0, 13000), max_size=200),
)
def test_elements_are_those_of_the_array(
    memory: KcoreMemory, size: int, skew: int, indexes: list[int]
) -> None:
    # The array begins inside the segment; elements outside it or across its end fail, and no
    # others.
    wanted = np.array(indexes, np.uint64)
    rows, errors = read_elements(memory, HIGH + skew, wanted, size)
    for row, index in enumerate(indexes):
        begin = skew + index * size
        expected = HIGH_DATA[begin : begin + size]
        if len(expected) == size:
            assert errors[row] == 0
            assert rows[row].tobytes() == expected
        else:
            assert errors[row] == errno.EFAULT


def test_a_block_never_crosses_a_page(memory: KcoreMemory) -> None:
    # Ten elements of 1000 bytes, of which the fifth and the ninth cross a page boundary.
    sizes = []

    class Spy:
        def batches(self, addresses: np.ndarray, lengths: np.ndarray) -> object:
            sizes.extend(zip((addresses - np.uint64(HIGH)).tolist(), lengths.tolist(), strict=True))
            return memory.batches(addresses, lengths)

    list(element_batches(Spy(), HIGH, np.arange(10, dtype=np.uint64), 1000))  # type: ignore[arg-type]
    assert sizes == [(0, 4000), (4000, 1000), (5000, 3000), (8000, 1000), (9000, 1000)]


def test_structs(memory: KcoreMemory) -> None:
    rows, errors = read_structs(memory, u64(LOW + 5, 1), 100)
    assert errors.tolist() == [0, errno.EFAULT]
    assert rows[0].tobytes() == LOW_DATA[5:105]


def test_a_truncated_file_is_an_io_error_and_not_zeros(tmp_path: Path) -> None:
    whole = core([(HIGH, HIGH_DATA)])
    (tmp_path / "core").write_bytes(whole[:-4096])
    with KcoreMemory(str(tmp_path / "core")) as memory:
        _, errors = read_pages(memory, u64(HIGH, HIGH + 8192))
        assert errors.tolist() == [0, errno.EIO]
        with pytest.raises(OSError, match="cannot be read"):
            read_word(memory, HIGH + 8192)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a 64-bit little-endian ELF"),
        (b"\x7fELF\x01\x01" + bytes(100), "not a 64-bit little-endian ELF"),
        (core([]), "no memory"),
        (core([(HIGH, HIGH_DATA)])[:80], "truncated"),
    ],
)
def test_any_other_file_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "core").write_bytes(content)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SourceUnavailable, match=why):
        KcoreMemory(str(tmp_path / "core"))
    assert os.listdir("/proc/self/fd") == before


BIG = [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]


def patched(place: int, value: int) -> bytes:
    """Return a core file with one u64 changed."""
    whole = bytearray(core([(HIGH, HIGH_DATA)], note(b"VMCOREINFO", INFO)))
    struct.pack_into("<Q", whole, place, value)
    return bytes(whole)


# Offset, address, size in the file and in memory in each program header (elf(5), Elf64_Phdr), and
# the offset of the headers.
@pytest.mark.parametrize("value", BIG)
@pytest.mark.parametrize("place", [32, 72, 80, 96, 104, 128, 136, 152, 160])
def test_impossible_sizes_are_refused_or_left_out(
    tmp_path: Path, place: int, value: int
) -> None:
    (tmp_path / "core").write_bytes(patched(place, value))
    before = os.listdir("/proc/self/fd")
    try:
        memory = KcoreMemory(str(tmp_path / "core"))
    except SourceUnavailable as error:
        assert re.search(r"beyond 64 bits|no memory|program headers", str(error))
    else:
        # Any address it accepts as memory is read from the file, or is an error.
        for address in (HIGH, value, *memory.segments.start.tolist()):
            with suppress(OSError):
                read_word(memory, address)
        memory.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_missing_kcore_is_one_sentence() -> None:
    with pytest.raises(SourceUnavailable, match=r"^source 'kcore' .*CONFIG_PROC_KCORE") as caught:
        KcoreMemory("/nonexistent/kcore")
    assert "\n" not in str(caught.value)


def test_closing_twice_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(core([(HIGH, HIGH_DATA)]))
    memory = KcoreMemory(str(tmp_path / "core"))
    memory.close()
    memory.close()
