"""maps and mountinfo, on recorded lines."""

from __future__ import annotations

import os

import pytest

from pagewalk.errors import BadText
from pagewalk.pages import EXEC, READ, SHARED, WRITE, Backing
from pagewalk.proc.maps import backing_of, parse_maps, parse_mountinfo

# Recorded on Linux 6.18, shortened; the odd names are files of that name, mapped.
# A VMA without a name ends in a blank.
RECORDED = b"""\
55d1a2c4e000-55d1a2c50000 r--p 00000000 fe:00 1311                       /usr/bin/sleep
55d1a2c50000-55d1a2c54000 r-xp 00002000 fe:00 1311                       /usr/bin/sleep
55d1be1c3000-55d1be1e4000 rw-p 00000000 00:00 0                          [heap]
7f1c00000000-7f1c00001000 rw-s 00000000 00:01 1030                       /memfd:a b (deleted)
7f1c00001000-7f1c00002000 r--p 00001000 fe:00 77                         /tmp/new\\012line
7f1c00002000-7f1c00003000 r--p 00000000 fe:00 78                         /tmp/two  spaces (deleted)
7f1c00003000-7f1c00004000 rw-p 00000000 00:00 0\x20
7f1c00004000-7f1c00005000 rw-p 00000000 fe:00 79                         /tmp/caf\xe9
7ffc5b5f0000-7ffc5b5f4000 r--p 00000000 00:00 0                          [vvar]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""
VMAS = parse_maps(RECORDED)


def test_addresses_are_half_open_and_reach_the_top_of_64_bits() -> None:
    assert (VMAS.start[0], VMAS.end[0]) == (0x55D1_A2C4_E000, 0x55D1_A2C5_0000)
    assert (VMAS.start[-1], VMAS.end[-1]) == (0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FF60_1000)


def test_permissions_offset_device_and_inode_of_a_line() -> None:
    assert VMAS.perms.tolist()[:4] == [READ, READ | EXEC, READ | WRITE, READ | WRITE | SHARED]
    assert (VMAS.offset[1], VMAS.inode[1], VMAS.dev[1]) == (0x2000, 1311, 0xFE << 32)


def test_names_stay_as_the_kernel_gives_them() -> None:
    assert VMAS.name == (
        "/usr/bin/sleep", "/usr/bin/sleep", "[heap]", "/memfd:a b (deleted)", r"/tmp/new\012line",
        "/tmp/two  spaces (deleted)", "", "/tmp/caf\udce9", "[vvar]", "[vsyscall]",
    )


def test_an_empty_file_has_no_vmas() -> None:
    assert len(parse_maps(b"")) == 0


NEXT = b"1000-2000 rw-p 00000000 00:00 0 \n"


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n", b"\n", b"2000-3000 rw-p\n", b"x-y rw-p 0 0:0 0\n",
        b"2000-3000 rw-p 00000000 00:00 0",  # cut
        b"2000-3000 rw-p 00000000 00:00 99999999999999999999 /x\n",
        b"2000-3000 rw-p 00000000 00:00 -1 /x\n",
        b"2000-3000 rwzp 00000000 00:00 0 \n",
        b"1000-3000 rw-p 00000000 00:00 0 \n",  # overlaps
        b"3000-2000 rw-p 00000000 00:00 0 \n",
        b"2000-2800 rw-p 00000000 00:00 0 \n",  # half a page
    ],
)
def test_what_is_no_maps_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 2 of maps"):
        parse_maps(NEXT + line)


# What split(), splitlines() and str take for blanks or line ends, and what is no UTF-8.
ODD = [bytes([byte]) for byte in range(1, 256) if byte != 0x0A] + [b"\xc2\x85", b"\xe2\x80\xa8"]


@pytest.mark.parametrize("odd", ODD, ids=bytes.hex)
def test_a_name_keeps_every_byte(odd: bytes) -> None:
    name = b"/tmp/a%bb%b" % (odd, odd)
    vmas = parse_maps(b"0-1000 rw-p 00000000 00:00 7    %b\n" % name + NEXT)
    assert [os.fsencode(called) for called in vmas.name] == [name, b""]


@pytest.mark.parametrize(
    ("name", "inode", "filesystem", "expected"),
    [
        ("", 0, "", Backing.ANON),
        ("[heap]", 0, "", Backing.ANON),
        ("[stack]", 0, "", Backing.ANON),
        ("[anon:malloc]", 0, "", Backing.ANON),  # prctl PR_SET_VMA_ANON_NAME
        ("[vdso]", 0, "", Backing.KERNEL),
        ("[vvar]", 0, "", Backing.HIDDEN),
        ("[vvar_vclock]", 0, "", Backing.HIDDEN),
        ("[vsyscall]", 0, "", Backing.HIDDEN),
        ("/usr/bin/sleep", 1311, "ext4", Backing.FILE),
        ("/usr/bin/sleep", 1311, "", Backing.FILE),  # another mount namespace
        ("/memfd:x (deleted)", 9, "tmpfs", Backing.SHMEM),
        ("/dev/shm/x", 9, "tmpfs", Backing.SHMEM),
        ("/SYSV00000000 (deleted)", 9, "tmpfs", Backing.SHMEM),
        ("/dev/zero (deleted)", 9, "tmpfs", Backing.SHMEM),  # shared anonymous memory
        ("/anon_hugepage (deleted)", 9, "hugetlbfs", Backing.HUGETLB),
        ("/dev/zero", 5, "devtmpfs", Backing.ANON),  # a private map of it is anonymous memory
        ("/dev/dri/card0", 5, "devtmpfs", Backing.DRIVER),
        ("/dev/kfd", 5, "", Backing.DRIVER),
        ("anon_inode:[perf_event]", 11, "", Backing.DRIVER),
    ],
)
def test_what_a_vma_maps(name: str, inode: int, filesystem: str, expected: Backing) -> None:
    assert backing_of(name, inode, filesystem) == expected


def test_the_filesystem_is_found_by_device() -> None:
    line = b"7f0000000000-7f0000001000 rw-s 00000000 00:21 5    /run/x\n"
    assert parse_maps(line, {0x21: "tmpfs"}).backing.tolist() == [Backing.SHMEM]
    assert parse_maps(line, {0x22: "tmpfs"}).backing.tolist() == [Backing.FILE]


def test_mountinfo_gives_the_type_of_each_device() -> None:
    # With no optional field, with one, with two, and with a blank in the mount point.
    recorded = (
        b"21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        b"33 21 0:33 / /dev/shm rw shared:4 - tmpfs tmpfs rw\n"
        b"34 21 0:34 / /mnt/a\\040b rw shared:5 master:2 - hugetlbfs none rw,pagesize=2M\n"
    )
    assert parse_mountinfo(recorded) == {254 << 32: "ext4", 33: "tmpfs", 34: "hugetlbfs"}
