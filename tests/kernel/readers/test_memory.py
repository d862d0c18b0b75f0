"""Reads that work with any reader, on a core file built by hand."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.kernel.readers.kcore import KcoreMemory
from pagewalk.kernel.readers.memory import (
    element_batches,
    page_batches,
    read_bytes,
    read_pages,
    read_structs,
    read_word,
    read_words,
)
from pagewalk.model.columns import I32, U8, U64
from tests.kernel.core_file import HIGH, HIGH_DATA, LOW, LOW_DATA


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


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


def read_elements(memory: KcoreMemory, base: int, indexes: U64, size: int) -> tuple[U8, I32]:
    """Return copies of array elements as (u8[n, size], errno i32[n])."""
    elements = np.empty((len(indexes), size), np.uint8)
    errors = np.empty(len(indexes), np.int32)
    for first, part, codes in element_batches(memory, base, indexes, size):
        rows = slice(first, first + len(codes))
        elements[rows], errors[rows] = part, codes
    return elements, errors


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
