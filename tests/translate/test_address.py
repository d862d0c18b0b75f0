"""Addresses as people write them; the VMAs are defined below."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pagewalk.commands.pages import named
from pagewalk.model.columns import Backing
from pagewalk.model.errors import BadRequest
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.format import Era
from pagewalk.translate.address import called, check_canonical, holder_of, locate
from tests import by_hand

X86 = ARCHES["x86_64"]
LIBC = "/usr/lib/libc.so.6"
# (start, pages, perms, file offset, backing, name)
VMAS = by_hand.vmas(
    [
        (0x40_0000, 4, 5, 0, Backing.FILE, "/opt/a/cafe"),
        (0x50_0000, 4, 5, 0, Backing.FILE, "/opt/one/plug.so"),
        (0x51_0000, 4, 5, 0, Backing.FILE, "/opt/two/plug.so"),
        (0x60_0000, 8, 3, 0, Backing.ANON, "[heap]"),
        (0x70_0000, 8, 3, 0, Backing.ANON, ""),
        (0x7F00_0000_0000, 2, 1, 0, Backing.FILE, LIBC),
        (0x7F00_0000_2000, 3, 5, 0x2000, Backing.FILE, LIBC),
        (0x7F00_0001_0000, 1, 3, 0, Backing.FILE, "/tmp/libstdc++.so.6 (deleted)"),
        (0x7FFF_0000_0000, 4, 3, 0, Backing.ANON, "[stack]"),
    ]
)
# Names that a process may choose: deleted files, a file and its deleted namesake, a name that looks
# deleted, memfds, named anonymous memory, blanks, newlines as maps escapes them, invalid UTF-8.
ODD_NAMES = (
    "/tmp/libdel.so (deleted)", "/tmp/both", "/tmp/both (deleted)", "/memfd:jit (deleted)",
    "[anon:my heap]", "/tmp/two words", r"/tmp/new\012line", "/tmp/caf\udce9", "[anon:]]",
    "/tmp/[heap]", "/tmp/x (deleted) (deleted)", "", "/tmp/trailing ",
)
ODD = by_hand.vmas(
    [(0x1_0000 * (at + 1), 1, 3, 0, Backing.FILE, name) for at, name in enumerate(ODD_NAMES)]
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0x7f00", 0x7F00),
        ("7F00", 0x7F00),
        ("0xffffffffffffffff", (1 << 64) - 1),
        ("7f00+10", 0x7F10),
        ("0x7f00-0x10", 0x7EF0),
        ("heap", 0x60_0000),
        ("[heap]", 0x60_0000),
        ("heap+0x1000", 0x60_1000),
        ("heap+1000", 0x60_1000),
        # back from the end: 0x7fff00000000 + 4 pages
        ("stack-8", 0x7FFF_0000_3FF8),
        # counted from the load address, past it into the second VMA of the file
        ("libc.so.6+0x2010", 0x7F00_0000_2010),
        (f"{LIBC}+0x2010", 0x7F00_0000_2010),
        # the second VMA ends 5 pages above the load address
        ("libc.so.6-1", 0x7F00_0000_4FFF),
        ("libstdc++.so.6+10", 0x7F00_0001_0010),
        ("libstdc++.so.6 (deleted)", 0x7F00_0001_0000),
        # past its VMA, but still an address
        ("heap+0x9000", 0x60_9000),
        # hexadecimal digits are a number; a path means the file
        ("cafe", 0xCAFE),
        ("/opt/a/cafe", 0x40_0000),
    ],
)
def test_an_address_or_a_name_with_an_offset(text: str, address: int) -> None:
    assert locate(text, VMAS) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing", "'nothing' is neither a hexadecimal address nor the name of a VMA.*heap"),
        ("heap+zz", "neither"),
        ("hep+10", r"did you mean 'heap'\? choose from"),
        ("libc", r"did you mean 'libc.so.6'\? choose from"),
        ("nothing+0x10", "'nothing' is neither"),
        ("", "'' is neither"),
        ("+0x10", "neither"),
        ("plug.so+0x10", "'plug.so' could be any of /opt/one/plug.so, /opt/two/plug.so"),
        ("0x10000000000000000", "exceeds 64 bits"),
        ("0xffffffffffffffff+1", "exceeds 64 bits"),
        ("heap-0xffffffff", "exceeds 64 bits"),
    ],
)
def test_an_invalid_address_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        locate(text, VMAS)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("libdel.so", "/tmp/libdel.so (deleted)"),
        ("/tmp/libdel.so", "/tmp/libdel.so (deleted)"),
        ("libdel.so (deleted)", "/tmp/libdel.so (deleted)"),
        ("/tmp/both", "/tmp/both"),  # exactly what maps prints takes precedence
        ("/tmp/both (deleted)", "/tmp/both (deleted)"),
        ("memfd:jit", "/memfd:jit (deleted)"),
        ("/memfd:jit", "/memfd:jit (deleted)"),
        ("anon:my heap", "[anon:my heap]"),
        ("[anon:my heap]", "[anon:my heap]"),
        ("anon:]", "[anon:]]"),
        ("two words", "/tmp/two words"),
        (r"new\012line", r"/tmp/new\012line"),
        ("new\nline", r"/tmp/new\012line"),
        ("/tmp/new\nline", r"/tmp/new\012line"),
        ("caf\udce9", "/tmp/caf\udce9"),
        ("[heap]", "/tmp/[heap]"),
        ("x (deleted)", "/tmp/x (deleted) (deleted)"),
        ("trailing ", "/tmp/trailing "),
    ],
)
def test_an_odd_name_means_the_same_to_both_commands(text: str, name: str) -> None:
    row = ODD_NAMES.index(name)
    assert (called(text, ODD), named(ODD, text)) == ([row], [row])
    assert locate(text, ODD) == 0x1_0000 * (row + 1)
    assert locate(f"{text}+10", ODD) == 0x1_0000 * (row + 1) + 0x10


@pytest.mark.parametrize("text", ["both", "del", "my heap", "tmp", "x"])
def test_part_of_a_name_is_refused_and_an_ambiguous_name_is_not_guessed(text: str) -> None:
    with pytest.raises(BadRequest, match=f"'{text}' (is neither|could be any of /tmp/both, )"):
        locate(text, ODD)


def test_pages_shows_all_files_of_one_name_and_vmas_without_a_name() -> None:
    assert named(VMAS, "plug.so") == [1, 2]
    assert [named(VMAS, name) for name in ("anon", "[anon]", "")] == [[4]] * 3
    with pytest.raises(BadRequest, match="--vma: no VMA is called 'none'; choose from: anon, cafe"):
        named(VMAS, "none")


def test_two_deleted_files_of_one_path_are_two_files() -> None:
    twice = by_hand.vmas(
        [(at << 12, 1, 5, 0, Backing.FILE, "/tmp/l.so (deleted)") for at in (1, 2, 3)]
    )
    twice = replace(twice, inode=np.array([7, 7, 8], np.uint64))
    with pytest.raises(BadRequest, match=r"2 mapped files are called 'l\.so'; give an address"):
        locate("l.so", twice)
    assert named(twice, "l.so") == [0, 1, 2]


def test_an_error_lists_a_dozen_names_and_counts_the_rest() -> None:
    many = by_hand.vmas(
        [(page << 12, 1, 1, 0, Backing.FILE, f"/lib/lib{page}.so") for page in range(1, 21)]
    )
    listed = r"lib1\.so, .*lib12\.so and 8 more \(see pagewalk maps\)$"
    with pytest.raises(BadRequest, match=listed):
        locate("nothing", many)


@pytest.mark.parametrize(
    ("levels", "addr", "canonical"),
    [
        (4, 0, True),
        (4, 0x7FFF_FFFF_FFFF, True),
        (4, 0x8000_0000_0000, False),
        (4, 0xFFFF_7FFF_FFFF_FFFF, False),
        (4, 0xFFFF_8000_0000_0000, True),
        (5, 0x8000_0000_0000, True),
        (5, 0xFF_FFFF_FFFF_FFFF, True),
        (5, 0x100_0000_0000_0000, False),
        (5, 0xFF00_0000_0000_0000, True),
        (4, (1 << 64) - 1, True),
    ],
)
def test_canonical_means_that_the_high_bits_are_equal(
    levels: int, addr: int, canonical: bool
) -> None:
    arch = X86.on(levels, Era((6, 18), 52))
    if canonical:
        check_canonical(addr, arch)
        return
    top = 47 if levels == 4 else 56
    with pytest.raises(BadRequest, match=f"{addr:#x} is not canonical.*63 to {top} must be equal"):
        check_canonical(addr, arch)


@pytest.mark.parametrize(
    ("addr", "row"),
    [(0, None), (0x60_0000, 3), (0x60_7FFF, 3), (0x60_8000, None), (0x7F00_0000_2000, 6),
     (0x7FFF_0000_4000, None)],
)
def test_the_vma_that_contains_an_address(addr: int, row: int | None) -> None:
    assert holder_of(VMAS, addr) == row
