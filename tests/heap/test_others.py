"""Other allocators, by the names of their libraries."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.heap.others import AT_ONCE, LIBRARIES, TEXTS, linked_into, loaded
from pagewalk.model.columns import READ, Backing
from tests.by_hand import vmas
from tests.heap.test_buildinfo import elf

PATHS = {
    "jemalloc": "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "tcmalloc": "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
    "mimalloc": "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0",
    "snmalloc": "/usr/local/lib/libsnmallocshim.so",
    "Hoard": "/usr/local/lib/libhoard.so",
    "musl": "/lib/ld-musl-x86_64.so.1",
    "bionic": "/apex/com.android.runtime/lib64/bionic/libc.so",
}


def of(*paths: str) -> list[str]:
    rows = [(0x1000 * (2 * at + 1), 1, READ, 0, Backing.FILE, path)
            for at, path in enumerate(paths)]
    return loaded(vmas(rows))


@pytest.mark.parametrize("allocator", LIBRARIES)
def test_each_is_told_by_its_library(allocator: str) -> None:
    assert of("/usr/bin/program", PATHS[allocator], PATHS[allocator]) == [allocator]


def test_debian_calls_the_library_of_musl_as_that_of_glibc() -> None:
    assert of("/usr/lib/x86_64-linux-musl/libc.so") == ["musl"]


def test_glibc_is_none_of_them_nor_is_a_folder_of_that_name() -> None:
    assert of("/usr/lib/x86_64-linux-gnu/libc.so.6", "/home/libjemalloc/program") == []


@pytest.mark.parametrize("allocator", TEXTS)
@pytest.mark.parametrize("before", [0, AT_ONCE - 5, 2 * AT_ONCE])
def test_one_linked_into_the_program_is_told_by_a_text(
    allocator: str, before: int, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf(b"x" * before + TEXTS[allocator] + b"y" * 100, b".rodata"))
    with open(program, "rb", 0) as file:
        assert linked_into(file.fileno()) == [allocator]


@pytest.mark.parametrize("raw", [
    b"", elf(b"", b".rodata")[:100], elf(b"jemalloc, tcmalloc and mimalloc", b".rodata"),
    elf(TEXTS["jemalloc"], b".comment"),
])
def test_other_programs_have_none(raw: bytes, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(raw)
    with open(program, "rb", 0) as file:
        assert linked_into(file.fileno()) == []
