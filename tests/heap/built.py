"""A heap built by hand, as glibc's malloc would lay it out (malloc/malloc.c)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pagewalk.heap.chunks import BINS
from pagewalk.heap.memory import Memory
from pagewalk.model.columns import U64, VMAs
from pagewalk.model.ranges import union

START, STATE = 0x5555_0000_0000, 0x7FFF_0000_0000
BINS_AT = STATE + 112


@dataclass
class Built:
    """Chunks one after another from START on, and the malloc_state that knows the free ones.

    ``words`` are those of the heap; ``heads`` of the bins, ``fast`` of the fastbins. ``free`` and
    ``quick`` are (address, size) of what is on lists of the one and of the other kind.
    """

    words: U64
    heads: U64
    fast: U64
    free: list[tuple[int, int]] = field(default_factory=list)
    quick: list[tuple[int, int]] = field(default_factory=list)

    @property
    def ranges(self) -> U64:
        """Return the heap's [start, end)."""
        return np.array([[START, START + 8 * len(self.words)]], np.uint64)

    def memory(self, *holes: tuple[int, int]) -> Memory:
        """Return a process's memory with this heap in it, of which ``holes`` are not in RAM."""
        raw = self.words.tobytes()
        edges = [START, *(edge for hole in holes for edge in hole), START + len(raw)]
        readable = union(np.array(edges, np.uint64).reshape(-1, 2))

        def read(part: memoryview, at: int) -> int:
            assert any(low <= at < high for low, high in readable.tolist())
            found = raw[at - START :][: len(part)]
            part[: len(found)] = found
            return len(found)

        none = np.zeros((0, 2), np.uint64)
        return Memory(no_vmas(), readable, readable, readable, none, read)


def no_vmas() -> VMAs:
    """Return no VMAs."""
    none, small = np.zeros(0, np.uint64), np.zeros(0, np.uint8)
    return VMAs(none, none, small, none, none, none, small, ())


def build(chunks: Sequence[tuple[int, str]], *, mangled: bool = True, seed: int = 1) -> Built:
    """Lay out ``chunks``, each (size, "used", "free" or "fast"), their lists in a random order."""
    total = sum(size for size, _ in chunks) + 32
    built = Built(np.zeros(total // 8, np.uint64), np.zeros(2 * BINS, np.uint64),
                  np.zeros(10, np.uint64))
    at, before_in_use = 0, 1
    for size, kind in chunks:
        built.words[at // 8 + 1] = size | before_in_use
        if kind == "free":
            built.words[(at + size) // 8] = size
            built.free.append((START + at, size))
        if kind == "fast":
            built.quick.append((START + at, size))
        before_in_use = int(kind != "free")
        at += size
    built.words[at // 8 + 1] = 32 | before_in_use
    shuffled = random.Random(seed)
    link_bins(built, shuffled)
    link_fastbins(built, shuffled, mangled=mangled)
    return built


def link_bins(built: Built, shuffled: random.Random) -> None:
    members: dict[int, list[int]] = {bin_: [] for bin_ in range(BINS)}
    for addr, _ in built.free:
        members[shuffled.randrange(3)].append(addr)  # which bin it is does not matter here
    for bin_, chunks in members.items():
        shuffled.shuffle(chunks)
        ring = [BINS_AT + 16 * bin_ - 16, *chunks]
        for here, following in zip(ring, [*ring[1:], ring[0]], strict=True):
            put(built, here + 16, following)
            put(built, following + 24, here)


def put(built: Built, addr: int, word: int) -> None:
    if BINS_AT <= addr < BINS_AT + 16 * BINS:
        built.heads[(addr - BINS_AT) // 8] = word
    else:
        built.words[(addr - START) // 8] = word


def link_fastbins(built: Built, shuffled: random.Random, *, mangled: bool) -> None:
    for size in {size for _, size in built.quick}:
        chunks = [addr for addr, of in built.quick if of == size]
        shuffled.shuffle(chunks)
        built.fast[(size - 32) // 16] = chunks[0]
        for here, following in zip(chunks, [*chunks[1:], 0], strict=True):
            put(built, here + 16, following ^ ((here + 16) >> 12 if mangled else 0))
