"""maps and mountinfo, on recorded lines."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pagewalk.model.columns import EXEC, READ, SHARED, WRITE, Backing
from pagewalk.model.errors import BadText
from pagewalk.proc.kernel import architecture
from pagewalk.proc.maps import backing_of, gate_name, names_in, parse_maps, parse_mountinfo

# Recorded on Linux 6.18, shortened; the odd names are of real mapped files.
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


def test_names_stay_as_the_kernel_prints_them() -> None:
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
        b"0-2000 rw-p 00000000 00:00 0 \n",  # ends no higher
        b"3000-2000 rw-p 00000000 00:00 0 \n",
        b"2000-2800 rw-p 00000000 00:00 0 \n",  # half a page
    ],
)
def test_an_invalid_line_of_maps_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 2 of maps"):
        parse_maps(NEXT + line)


def test_a_vma_that_was_printed_and_then_merged_counts_once() -> None:
    # As seen on 6.18: the next line begins with the VMA that holds the last one's end.
    lines = (b"1000-3000 r--p 00004000 08:01 7 /x\n", b"3000-5000 rw-p 00000000 00:00 0 \n")
    vmas = parse_maps(b"0-2000 r--p 00003000 08:01 7 /x\n" + b"".join(lines))
    assert vmas.ranges.tolist() == [[0, 0x2000], [0x2000, 0x3000], [0x3000, 0x5000]]
    assert vmas.offset.tolist() == [0x3000, 0x5000, 0]


# What split(), splitlines() and str take for blanks or line ends, and bytes that are not UTF-8.
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
        ("[vsyscall]", 0, "", Backing.GATE),
        ("[stack:4711]", 0, "", Backing.ANON),  # 3.4 to 4.4
        ("[anon:[vsyscall]]", 0, "", Backing.ANON),  # a process may choose this name
        ("[sigpage]", 0, "", Backing.KERNEL),
        ("[uprobes]", 0, "", Backing.KERNEL),
        ("[vectors]", 0, "", Backing.KERNEL),  # of a 32-bit program on aarch64: an ordinary VMA
        ("[kuser]", 0, "", Backing.KERNEL),  # nios2's, or any name that a kernel may choose
        ("[vsyscall]", 5, "tmpfs", Backing.SHMEM),  # a file
        ("/usr/bin/sleep", 1311, "ext4", Backing.FILE),
        ("/usr/bin/sleep", 1311, "", Backing.FILE),  # another mount namespace
        ("/memfd:x (deleted)", 9, "tmpfs", Backing.SHMEM),
        ("/dev/shm/x", 9, "tmpfs", Backing.SHMEM),
        ("/SYSV00000000 (deleted)", 9, "tmpfs", Backing.SHMEM),
        ("/SYSV00000000 (deleted)", 0, "tmpfs", Backing.SHMEM),  # the machine's first segment
        ("/dev/zero (deleted)", 9, "tmpfs", Backing.SHMEM),  # shared anonymous memory
        ("/anon_hugepage (deleted)", 9, "hugetlbfs", Backing.HUGETLB),
        ("/dev/zero", 5, "devtmpfs", Backing.ANON),  # mapped privately it is anonymous memory
        ("/dev/dri/card0", 5, "devtmpfs", Backing.DRIVER),
        ("/dev/kfd", 5, "", Backing.DRIVER),
        ("anon_inode:[perf_event]", 11, "", Backing.DRIVER),
    ],
)
def test_what_a_vma_maps(name: str, inode: int, filesystem: str, expected: Backing) -> None:
    assert backing_of(name, inode, filesystem, "[vsyscall]") == expected


# A 32-bit ARM process, as show_map_vma (fs/proc/task_mmu.c) prints it: addresses of eight digits,
# the signal page and the vDSO where mmap put them, and the gate at the vectors.
ARM = b"""\
00010000-0008f000 r-xp 00000000 b3:02 656                                /bin/busybox
0009e000-000a0000 rw-p 0007e000 b3:02 656                                /bin/busybox
01234000-01255000 rw-p 00000000 00:00 0                                  [heap]
76f00000-76f02000 rw-p 00000000 00:00 0\x20
76ffc000-76ffd000 r-xp 00000000 00:00 0                                  [sigpage]
76ffd000-76ffe000 r--p 00000000 00:00 0                                  [vvar]
76ffe000-76fff000 r-xp 00000000 00:00 0                                  [vdso]
7efdf000-7f000000 rw-p 00000000 00:00 0                                  [stack]
ffff0000-ffff1000 r-xp 00000000 00:00 0                                  [vectors]
"""


@pytest.mark.parametrize(
    ("machine", "vectors"),
    [("armv7l", Backing.GATE), ("armv6l", Backing.GATE), ("aarch64", Backing.KERNEL)],
)
def test_the_gate_of_arm_is_its_vectors(machine: str, vectors: Backing) -> None:
    vmas = parse_maps(ARM, machine=machine)
    assert vmas.backing.tolist() == [
        Backing.FILE, Backing.FILE, Backing.ANON, Backing.ANON, Backing.KERNEL, Backing.HIDDEN,
        Backing.KERNEL, Backing.ANON, vectors,
    ]
    assert vmas.gate.tolist() == [False] * 8 + [vectors == Backing.GATE]


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "[vsyscall]"), ("armv5tel", "[vectors]"), ("ia64", "[vdso]"), ("aarch64", ""),
     ("riscv64", ""), ("s390x", ""), ("ppc64le", ""), ("i686", "")],
)
def test_the_gate_of_each_architecture(machine: str, name: str) -> None:
    assert gate_name(machine) == name


def test_this_kernel_has_the_gate_of_its_architecture() -> None:
    with open("/proc/self/maps", "rb") as file:
        vmas = parse_maps(file.read())
    above = vmas.start >= np.uint64(1 << 63)
    assert vmas.gate.tolist() == above.tolist() or architecture() != "x86_64"


def test_the_filesystem_is_found_by_device() -> None:
    line = b"7f0000000000-7f0000001000 rw-s 00000000 00:21 5    /run/x\n"
    assert parse_maps(line, {0x21: "tmpfs"}).backing.tolist() == [Backing.SHMEM]
    assert parse_maps(line, {0x22: "tmpfs"}).backing.tolist() == [Backing.FILE]


def test_mountinfo_gives_the_type_of_each_device() -> None:
    # With no optional fields, with one, with two, and with a blank in the mount point.
    recorded = (
        b"21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        b"33 21 0:33 / /dev/shm rw shared:4 - tmpfs tmpfs rw\n"
        b"34 21 0:34 / /mnt/a\\040b rw shared:5 master:2 - hugetlbfs none rw,pagesize=2M\n"
    )
    assert parse_mountinfo(recorded) == {254 << 32: "ext4", 33: "tmpfs", 34: "hugetlbfs"}


def test_vmas_are_named_as_when_all_are_parsed() -> None:
    edges = [*zip(VMAS.start.tolist(), VMAS.end.tolist(), strict=True)]
    assert names_in(RECORDED, edges) == [*VMAS.name]
    assert names_in(RECORDED, [*edges[:2], edges[1], edges[4]]) == [
        VMAS.name[row] for row in (0, 1, 1, 4)]
    for (start, end), name in zip(edges, VMAS.name, strict=True):
        assert names_in(RECORDED, [(start, end)]) == [name]
        assert names_in(RECORDED, [edges[0], (start, end + 1)]) is None
    assert names_in(b"", [(0x400000, 0x401000)]) is None
    assert names_in(b"", []) == []


def test_a_name_that_looks_like_edges_is_no_vma() -> None:
    first = b"00400000-00401000 r--p 00000000 fe:00 7 /x 00402000-00403000 r--p\n"
    assert names_in(first, [(0x400000, 0x401000)]) == ["/x 00402000-00403000 r--p"]
    assert names_in(first, [(0x402000, 0x403000)]) is None
    with pytest.raises(BadText, match="line 2"):
        names_in(first + b"00402000-00403000 what\n", [(0x402000, 0x403000)])
