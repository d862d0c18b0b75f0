"""/proc/PID/maps: the VMAs of a process, and what each of them maps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import numpy as np

from pagewalk.pages import EXEC, READ, SHARED, WRITE, Backing, VMAs

PERMS = {ord("r"): READ, ord("w"): WRITE, ord("x"): EXEC, ord("s"): SHARED}
HIDDEN_NAMES = frozenset({"[vvar]", "[vvar_vclock]", "[vsyscall]"})
MFD_HUGETLB, HUGE_SHIFT = 0x4, 26  # include/uapi/linux/memfd.h


def parse_maps(text: bytes, filesystems: dict[int, str] | None = None) -> VMAs:
    """Return the VMAs of a maps file; ``filesystems`` maps a dev to its type (mountinfo).

    A name is kept as the kernel prints it: spaces as they are, a newline as ``\\012``, an unlinked
    file with `` (deleted)``. Raises ValueError for a line that is no maps line.
    """
    rows = [line.split(None, 5) for line in text.split(b"\n") if line]
    count = len(rows)
    edges = np.array(
        [int(edge, 16) for row in rows for edge in row[0].split(b"-")], np.uint64
    ).reshape(count, 2)
    perms = np.array([sum(PERMS.get(c, 0) for c in row[1]) for row in rows], np.uint8)
    offset = np.array([int(row[2], 16) for row in rows], np.uint64)
    dev = np.array([parse_dev(row[3]) for row in rows], np.uint64)
    inode = np.array([int(row[4]) for row in rows], np.uint64)
    name = tuple(row[5].decode(errors="surrogateescape") if len(row) > 5 else "" for row in rows)
    kinds = filesystems or {}
    backing = np.array(
        [
            backing_of(name[i], int(inode[i]), kinds.get(int(dev[i]), ""))
            for i in range(count)
        ],
        np.uint8,
    )
    return VMAs(edges[:, 0].copy(), edges[:, 1].copy(), perms, offset, dev, inode, backing, name)


@dataclass(eq=False)
class LastMaps:
    """The maps text that was parsed last: mostly the next one is the same."""

    text: bytes = b""
    vmas: VMAs | None = None

    def parse(self, text: bytes, filesystems: dict[int, str]) -> VMAs:
        """Return parse_maps of ``text``."""
        if self.vmas is None or text != self.text:
            self.text, self.vmas = text, parse_maps(text, filesystems)
        return self.vmas


def parse_dev(field: bytes) -> int:
    major, _, minor = field.partition(b":")
    return int(major, 16) << 32 | int(minor, 16)


def backing_of(name: str, inode: int, filesystem: str) -> Backing:
    """Return what a VMA maps, from its name, inode and its filesystem's type ('' if unknown)."""
    if inode == 0:
        if name in HIDDEN_NAMES:
            return Backing.HIDDEN
        return Backing.KERNEL if name in ("[vdso]", "[uprobes]", "[sigpage]") else Backing.ANON
    if filesystem == "hugetlbfs":
        return Backing.HUGETLB
    if filesystem == "tmpfs":
        return Backing.SHMEM
    if name == "/dev/zero":  # a private map of it is anonymous memory (drivers/char/mem.c)
        return Backing.ANON
    if filesystem == "devtmpfs" or name.startswith("/dev/") or not name.startswith("/"):
        return Backing.DRIVER
    return Backing.FILE


def parse_mountinfo(text: bytes) -> dict[int, str]:
    """Return the filesystem type of each mounted dev (major << 32 | minor)."""
    kinds = {}
    for line in text.splitlines():
        head, _, tail = line.partition(b" - ")
        major, _, minor = head.split()[2].partition(b":")
        kinds[int(major) << 32 | int(minor)] = tail.split()[0].decode()
    return kinds


@cache
def internal_filesystems() -> dict[int, str]:
    """Return the types of the mounts the kernel keeps to itself, absent from every mountinfo.

    memfd, SysV and shared anonymous memory live on one of them, anonymous hugetlb memory on one
    for each page size. A memfd of our own shows each one's device; it reserves no page.
    """
    found = {}
    for fstype, flags in [("tmpfs", 0), *(("hugetlbfs", f) for f in hugetlb_memfd_flags())]:
        try:
            fd = os.memfd_create("pagewalk", flags | os.MFD_CLOEXEC)
        except OSError:
            continue
        dev = os.fstat(fd).st_dev
        found[os.major(dev) << 32 | os.minor(dev)] = fstype
        os.close(fd)
    return found


def hugetlb_memfd_flags() -> list[int]:
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except OSError:
        return []
    sizes = [int(name.removeprefix("hugepages-").removesuffix("kB")) << 10 for name in names]
    return [MFD_HUGETLB | (size.bit_length() - 1) << HUGE_SHIFT for size in sizes]

