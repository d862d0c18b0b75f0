"""Names and parents that no kernel would leave so: a walk through them ends, and says why."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import numpy as np

from pagewalk.kernel.readers.memory import Batch
from pagewalk.kernel.structs.btf import Btf, Member
from pagewalk.kernel.structs.dentries import LONGEST, Paths, read_paths
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import U32, U64

BASE, SIZE = 0xFFFF_8880_0000_0000, 24
NAMES = BASE + (1 << 24)
PLACES = {"d_parent": (0, 8), "d_name.hash": (8, 4), "d_name.len": (12, 4), "d_name.name": (16, 8)}


class Layout:
    """A struct dentry of 24 bytes, as BTF would describe it."""

    def member(self, struct: str, path: str) -> Member:
        assert struct == "dentry"
        return Member(*PLACES[path])


class Forged:
    """Memory in which dentries lie side by side and then their names; anything else is absent.

    ``moving`` are dentries whose hash is another one in each read.
    """

    def __init__(self, rows: list[tuple[int, bytes, int | None]]) -> None:
        self.names, table = b"", []
        for parent, name, length in rows:
            table.append((address(parent), 0, len(name) if length is None else length,
                          NAMES + len(self.names)))
            self.names += name
        kind = [("parent", "<u8"), ("hash", "<u4"), ("len", "<u4"), ("name", "<u8")]
        self.dentries = np.array(table, kind)
        self.moving: list[int] = []
        self.reads = 0

    def read(self, at: int, size: int) -> bytes:
        for base, data in ((BASE, self.dentries.tobytes()), (NAMES, self.names)):
            if base <= at and at + size <= base + len(data):
                return data[at - base : at - base + size]
        raise OSError(errno.EFAULT, "absent")

    def batches(self, addresses: U64, lengths: U32 | int) -> Iterator[Batch]:
        self.reads += 1
        self.dentries["hash"][self.moving] = self.reads
        sizes = np.broadcast_to(np.asarray(lengths), addresses.shape).tolist()
        data, codes = b"", []
        for at, size in zip(addresses.tolist(), sizes, strict=True):
            try:
                data, code = data + self.read(at, size), 0
            except OSError as error:
                data, code = data + bytes(size), error.errno or 0
            codes.append(code)
        yield Batch(0, np.frombuffer(data, np.uint8), np.array(codes, np.int32))

    def close(self) -> None:
        pass


def address(row: int) -> int:
    return BASE + SIZE * row


def paths(memory: Forged, *rows: int) -> Paths:
    kernel = Kernel(memory, cast(Btf, Layout()), 0, ExitStack())
    return read_paths(kernel, np.array([address(row) for row in rows], np.uint64))


TREE = [(0, b"/", None), (0, b"usr", None), (1, b"lib", None), (2, b"a.so", None)]


def test_a_path_is_made_of_names_up_to_the_dentry_that_is_its_own_parent() -> None:
    found = paths(Forged(TREE), 3, 1, 0, 3, 2)
    assert found.path == [b"/usr/lib/a.so", b"/usr", b"/", b"/usr/lib/a.so", b"/usr/lib"]
    assert set(found.top.tolist()) == {address(0)}
    assert not found.errno.any()


def test_parents_in_a_circle_end() -> None:
    memory = Forged([*TREE, (5, b"a", None), (4, b"b", None)])
    found = paths(memory, 4, 3)
    assert found.path == [None, b"/usr/lib/a.so"]
    assert found.errno.tolist() == [errno.ENAMETOOLONG, 0]
    assert memory.reads <= 3 * LONGEST / 2


def test_a_parent_that_is_absent_takes_only_what_is_below_it() -> None:
    found = paths(Forged([*TREE, (1 << 10, b"lost", None), (4, b"below", None)]), 5, 4, 3)
    assert found.path == [None, None, b"/usr/lib/a.so"]
    assert found.errno.tolist() == [errno.EFAULT, errno.EFAULT, 0]


def test_a_name_that_is_absent_or_has_a_wild_length() -> None:
    found = paths(Forged([*TREE, (0, b"x", 1 << 31), (0, b"y", 1000), (0, b"", None)]), 4, 5, 6)
    assert found.path == [None, None, b"/"]
    assert found.errno.tolist() == [errno.EAGAIN, errno.EFAULT, 0]


def test_a_dentry_that_is_renamed_during_each_read_is_withheld() -> None:
    memory = Forged(TREE)
    memory.moving = [2]
    found = paths(memory, 3, 1)
    assert found.path == [None, b"/usr"]
    assert found.errno.tolist() == [errno.EAGAIN, 0]


def test_the_longest_path_and_one_byte_more() -> None:
    long = [(0, b"d" * 255, None), *((row, b"d" * 255, None) for row in range(4, 18))]
    memory = Forged([*TREE, *long, (18, b"n" * 254, None), (18, b"n" * 255, None)])
    found = paths(memory, 19, 20)
    assert found.path[0] is not None
    assert len(found.path[0]) == LONGEST - 1  # the kernel counts the zero byte at the end
    assert (found.path[1], found.errno.tolist()) == (None, [0, errno.ENAMETOOLONG])
