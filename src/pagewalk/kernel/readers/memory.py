"""The interface of a reader of kernel memory, and the reads that work through every reader."""

import mmap
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from pagewalk.model.columns import I32, I64, U8, U32, U64

PAGE = mmap.PAGESIZE
_CHUNK = 1 << 12


def refuse_address(address: int, code: int) -> OSError:
    """Return the error for a read at ``address`` that failed with errno ``code``."""
    return OSError(code, f"kernel memory at {address:#x} cannot be read")


class Batch(NamedTuple):
    """The answers to requests ``first`` up to ``first + len(errno)``.

    ``data`` (u8) is the requests' bytes one after the other, a view that the next read through the
    same reader overwrites. ``errno`` is i32 per request, 0 if it was read; if not, its bytes are
    meaningless.
    """

    first: int
    data: U8
    errno: I32


class KernelMemory(Protocol):
    """A reader of kernel memory at virtual addresses, for use by one thread."""

    def batches(self, addresses: U64, lengths: U32 | int) -> Iterator[Batch]:
        """Read ``lengths`` bytes (u32[n], or one number for all; at most PAGE) at ``addresses``
        (u64[n])."""

    def read(self, address: int, size: int) -> bytes:
        """Read ``size`` bytes, at most PAGE, at ``address``; raises OSError with the errno."""

    def close(self) -> None:
        """Release every descriptor and mapping; closing twice is allowed."""


def read_bytes(memory: KernelMemory, address: int, size: int) -> bytes:
    """Read ``size`` bytes at ``address``; raises OSError with the kernel's errno."""
    blocks = range(0, size, PAGE)
    return b"".join(memory.read(address + at, min(PAGE, size - at)) for at in blocks)


def read_word(memory: KernelMemory, address: int) -> int:
    """Read the u64 at ``address``; raises OSError with the kernel's errno."""
    return int.from_bytes(memory.read(address, 8), "little")


def read_structs(memory: KernelMemory, addresses: U64, size: int) -> tuple[U8, I32]:
    """Read ``size`` bytes (at most PAGE) at each of ``addresses`` (u64[n]).

    Return (u8[n, size], errno i32[n]), copies.
    """
    rows = np.empty((len(addresses), size), np.uint8)
    errno = np.empty(len(addresses), np.int32)
    for batch in memory.batches(addresses, size):
        here = slice(batch.first, batch.first + len(batch.errno))
        rows[here], errno[here] = batch.data.reshape(-1, size), batch.errno
    return rows, errno


def read_words(memory: KernelMemory, addresses: U64) -> tuple[U64, I32]:
    """Read the u64 at each of ``addresses`` (u64[n]); return (words u64[n], errno i32[n])."""
    rows, errno = read_structs(memory, addresses, 8)
    return rows.view(np.uint64)[:, 0], errno


def page_batches(memory: KernelMemory, addresses: U64) -> Iterator[tuple[int, U64, I32]]:
    """Read the page at each of ``addresses`` (u64[n]); yield (first, words, errno) per batch.

    ``words`` is u64[k, 512], a view that the next step overwrites; ``errno`` is i32[k].
    """
    for batch in memory.batches(addresses, PAGE):
        yield batch.first, batch.data.view(np.uint64).reshape(-1, PAGE // 8), batch.errno


def read_pages(memory: KernelMemory, addresses: U64) -> tuple[U64, I32]:
    """Read the page at each of ``addresses`` (u64[n]); return (words u64[n, 512], errno i32[n]).

    If they fit in one batch, the words are a view that the next read overwrites, else a copy. For
    many pages use ``page_batches``.
    """
    parts = [
        (words if len(words) == len(addresses) else words.copy(), errno)
        for _, words, errno in page_batches(memory, addresses)
    ]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.empty((0, PAGE // 8), np.uint64), np.empty(0, np.int32)
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def element_batches(
    memory: KernelMemory, base: int, indexes: U64, size: int
) -> Iterator[tuple[int, U8, I32]]:
    """Read element ``i`` of an array at ``base`` for each i of ``indexes`` (u64[n], any order).

    Elements have ``size`` bytes, at most PAGE. Neighbours are read as one block, so ascending
    indexes are fastest. Yields (first, elements, errno): u8[k, size], a view that the next step
    overwrites, and i32[k].
    """
    # The bookkeeping of a chunk fits in the cache, and a chunk fills about one batch.
    for start in range(0, len(indexes), _CHUNK):
        chunk = indexes[start : start + _CHUNK]
        first = _block_starts(base, chunk, size)
        counts = np.diff(first, append=len(chunk))
        addresses = chunk[first] * np.uint64(size) + np.uint64(base)
        for batch in memory.batches(addresses, (counts * size).astype(np.uint32)):
            errno = np.repeat(batch.errno, counts[batch.first : batch.first + len(batch.errno)])
            yield start + int(first[batch.first]), batch.data.reshape(-1, size), errno


def _block_starts(base: int, indexes: U64, size: int) -> I64:
    # A block ends where the next element is not adjacent, and at each page boundary: so an unmapped
    # page does not spoil elements on its neighbours, and no block exceeds a page.
    if PAGE % size == 0 and base % size == 0:
        each = PAGE // size
        begins = indexes + np.uint64(base // size) & np.uint64(each - 1) == 0
    else:
        # An element that crosses the boundary is a block of its own.
        place = indexes * np.uint64(size) + np.uint64(base) & np.uint64(PAGE - 1)
        begins = (place < np.uint64(size)) | (place > np.uint64(PAGE - size))
    begins[0] = True
    begins[1:] |= indexes[1:] - indexes[:-1] != np.uint64(1)
    return np.flatnonzero(begins)
