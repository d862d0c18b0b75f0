"""/proc/PID/maps: the VMAs of a process, and what each of them maps."""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np

from pagewalk.model.columns import EXEC, READ, SHARED, U64, WRITE, Backing, VMAs
from pagewalk.model.errors import BadText
from pagewalk.proc import files
from pagewalk.proc.kernel import architecture
from pagewalk.proc.leases import leased
from pagewalk.proc.mounts import parse_mounts

PAGE = mmap.PAGESIZE
PERMS = {ord("r"): READ, ord("w"): WRITE, ord("x"): EXEC, ord("s"): SHARED}
# What the kernel maps into every process for its own purposes (_install_special_mapping) has a name
# in brackets and no file. The names below look the same but are anonymous memory: "[anon:NAME]" is
# a mapping that the process named (PR_SET_VMA_ANON_NAME), "[stack:TID]" a thread's stack (3.4 to
# 4.4), "[mpx]" a bounds table (up to 5.5).
ANON_NAME = re.compile(r"|\[heap\]|\[stack(:\d+)?\]|\[anon:.*\]|\[mpx\]", re.DOTALL)
# The vDSO's data, a PFN map on most architectures.
PFN_MAPS = frozenset({"[vvar]", "[vvar_vclock]"})
# show_vma_header_prefix, fs/proc/task_mmu.c
LINE = re.compile(
    rb"(?m)^([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][sp] [0-9a-f]{1,16}"
    rb" [0-9a-f]{1,8}:[0-9a-f]{1,8} \d{1,20})(?: +([^\n]*))?\n"
)
NEWLINE = r"\012"  # seq_file_path() escapes nothing else
MAP_NORESERVE = 0x4000  # include/uapi/asm-generic/mman.h
MFD_HUGETLB, HUGE_SHIFT = 0x4, 26  # include/uapi/linux/memfd.h


def parse_maps(
    text: bytes, filesystems: dict[int, str] | None = None, machine: str | None = None
) -> VMAs:
    """Return the VMAs of a maps file; ``filesystems`` maps a dev to its type (mountinfo).

    ``machine`` is the architecture of the kernel that wrote it (uname -m), None for this kernel's.

    A name is kept as the kernel prints it: spaces as they are, a newline as ``\\012``, an unlinked
    file with `` (deleted)``. A range that the kernel printed twice counts once. Raises BadText for
    a line that is not in the format of maps, and for VMAs that are not in ascending order.
    """
    rows = files.rows(LINE, text, "maps")
    first, last, fields, names = zip(*rows, strict=True) if rows else ((),) * 4
    start = np.array([int(edge, 16) for edge in first], np.uint64)
    end = np.array([int(edge, 16) for edge in last], np.uint64)
    # In a process with many VMAs, most differ only in their addresses.
    distinct: dict[tuple[bytes, bytes], int] = {}
    which = np.array(
        [distinct.setdefault(what, len(distinct)) for what in zip(fields, names, strict=True)],
        np.intp,
    )
    kinds, gate = filesystems or {}, gate_name(machine or architecture())
    mapped = [read_fields(*what, kinds, gate) for what in distinct]
    perms, offset, dev, inode, backing, name = zip(*mapped, strict=True) if mapped else ((),) * 6
    beyond = np.array([number >> 64 != 0 for number in inode], bool)
    if wrong := disorder(start, end) or np.flatnonzero(beyond[which]).tolist():
        raise BadText("maps", wrong[0] + 1, text.split(b"\n")[wrong[0]])
    vmas = VMAs(
        start,
        end,
        np.array(perms, np.uint8)[which],
        np.array(offset, np.uint64)[which],
        np.array(dev, np.uint64)[which],
        np.array(inode, np.uint64)[which],
        np.array(backing, np.uint8)[which],
        tuple([name[row] for row in which.tolist()]),
    )
    return vmas if (start[1:] >= end[:-1]).all() else without_repeats(vmas)


def names_in(text: bytes, edges: Iterable[tuple[int, int]]) -> list[str] | None:
    """Return what maps calls the VMAs with these ``edges`` (start, end), which are ascending.

    None if one of them is not there. The names are as in parse_maps, which would read the other
    VMAs too. Raises BadText.
    """
    found, at = list[str](), 0
    for start, end in edges:
        line = b"%08x-%08x " % (start, end)  # seq_put_hex_ll() with a width of 8
        if not text.startswith(line, at):
            at = text.find(b"\n" + line, at) + 1
            if not at:
                return None
        match = LINE.match(text, at)
        if match is None:
            raise BadText("maps", text.count(b"\n", 0, at) + 1, text[at:].partition(b"\n")[0])
        found.append(files.decode_name(match[4] or b""))
    return found


def read_fields(
    fields: bytes, raw: bytes, filesystems: dict[int, str], gate: str
) -> tuple[int, int, int, int, Backing, str]:
    # What a line of maps says besides the VMA's addresses, in the order of VMAs.
    modes, offset, device, word = fields.split(b" ")
    major, _, minor = device.partition(b":")
    dev, inode = int(major, 16) << 32 | int(minor, 16), int(word)
    name = files.decode_name(raw)
    backing = backing_of(name, inode, filesystems.get(dev, ""), gate)
    perms = sum(PERMS.get(letter, 0) for letter in modes)
    return perms, int(offset, 16), dev, inode, backing, name


def disorder(start: U64, end: U64) -> list[int]:
    # The rows that cannot be a VMA, or that do not end above the previous one.
    odd = (start >= end) | ((start | end) & np.uint64(PAGE - 1) != 0)
    odd[1:] |= end[1:] <= end[:-1]
    return np.flatnonzero(odd).tolist()


def without_repeats(vmas: VMAs) -> VMAs:
    # The kernel resumes at the VMA that holds the address where the last one ended (m_start,
    # fs/proc/task_mmu.c). If a VMA that it has printed was merged into that one in the meantime, it
    # prints the whole merged VMA, although Documentation/filesystems/proc.rst rules that out: seen
    # on 6.18. Only the new part counts.
    start = np.maximum(vmas.start, np.append(np.uint64(0), vmas.end[:-1]))
    offset = np.where(vmas.inode != 0, vmas.offset + (start - vmas.start), vmas.offset)
    return replace(vmas, start=start, offset=offset)


def gate_name(machine: str) -> str:
    """Return the name of an architecture's gate VMA, '' if it has none (get_gate_vma).

    That is a page of the kernel which maps and smaps list after each process's own VMAs although
    it is not one of them: no other number counts it, and pagemap ends before it.
    """
    if machine.startswith("arm"):  # arch/arm/kernel/process.c; on aarch64 it is an ordinary VMA
        return "[vectors]"
    # arch/x86/entry/vsyscall/vsyscall_64.c; ia64's is not named, so it prints as [vdso]
    # (show_map_vma)
    return {"x86_64": "[vsyscall]", "ia64": "[vdso]"}.get(machine, "")


def backing_of(name: str, inode: int, filesystem: str, gate: str = "") -> Backing:
    """Return what a VMA maps, from its name, inode and its filesystem's type ('' if unknown).

    ``gate`` is the name of the gate VMA.
    """
    # A SysV segment's inode is its id: that of the first one is 0.
    if inode == 0 and not name.startswith("/"):
        if ANON_NAME.fullmatch(name):
            return Backing.ANON
        if name == gate:
            return Backing.GATE
        return Backing.HIDDEN if name in PFN_MAPS else Backing.KERNEL
    if filesystem == "hugetlbfs":
        return Backing.HUGETLB
    if filesystem == "tmpfs":
        return Backing.SHMEM
    if name == "/dev/zero":  # a private map of it is anonymous memory (drivers/char/mem.c)
        return Backing.ANON
    if filesystem == "devtmpfs" or name.startswith("/dev/") or not name.startswith("/"):
        return Backing.DRIVER
    return Backing.FILE


@lru_cache(maxsize=8)  # most processes have the same text
def parse_mountinfo(text: bytes) -> dict[int, str]:
    """Return the filesystem type of each mounted dev (major << 32 | minor); raises BadText."""
    return {mount.dev: files.decode_name(mount.kind) for mount in parse_mounts(text)}


@cache
def internal_filesystems() -> dict[int, str]:
    """Return the types of the kernel's internal mounts, which no mountinfo lists, by dev."""
    return {device_key(os.fstat(fd)): fstype for fstype, fd in internal_files()}


def identity(path: str) -> tuple[int, int, str]:
    """Return how maps shows the file at ``path``: device, inode, path; raises OSError.

    The device is major << 32 | minor, as in VMAs. Of a file on an overlay maps shows that of the
    file below, which stat(2) does not tell: there a page of it is mapped for a look.
    """
    told = os.stat(path)
    if stacked(told):
        with suppress(OSError, ValueError), own_mapping(path) as address:
            vmas = parse_maps(files.read_bytes("/proc/self/maps"))
            row = int(np.searchsorted(vmas.start, np.uint64(address), side="right")) - 1
            return int(vmas.dev[row]), int(vmas.inode[row]), vmas.name[row]
    return device_key(told), told.st_ino, os.path.realpath(path).replace("\n", NEWLINE)


def stacked(told: os.stat_result) -> bool:
    """Return whether a file may show the pages of another one: on an overlay, in user space."""
    mounted = parse_mountinfo(files.read_bytes("/proc/self/mountinfo"))
    # the devices of an overlay's layers are mounted nowhere
    kind = mounted.get(device_key(told), "overlay")
    return stat.S_ISREG(told.st_mode) and (kind == "overlay" or kind.startswith("fuse"))


@contextmanager
def own_mapping(path: str) -> Iterator[int]:
    """Map the beginning of a regular file, without touching it, and yield its address.

    Raises OSError if it may not be read, ValueError if it is empty or somebody has a lease on it.
    """
    import ctypes  # only used here

    with files.named(path) as place:
        told = os.fstat(place)
        # st_blksize of hugetlbfs is that of its pages, of which no part can be unmapped
        length = min(told.st_size, told.st_blksize)
        # to open a device or a FIFO may have effects
        if not stat.S_ISREG(told.st_mode) or not length or leased(told):
            raise ValueError(path)
        fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # writable for from_buffer only: a private page that is not written is not made
        with mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE | MAP_NORESERVE) as mine:
            byte = ctypes.c_char.from_buffer(mine)
            address = ctypes.addressof(byte)
            del byte  # otherwise the mapping could not be closed
            yield address
    finally:
        os.close(fd)


def device_key(told: os.stat_result) -> int:
    """Return the device of a file as in VMAs.dev."""
    return os.major(told.st_dev) << 32 | os.minor(told.st_dev)


def internal_files() -> Iterator[tuple[str, int]]:
    """Yield (type, descriptor) of an empty file on each of the kernel's internal mounts.

    memfd, SysV and shared anonymous memory live on one of them, anonymous hugetlb memory on one
    for each page size. A memfd reserves no page, and is closed when the next one is requested.
    """
    sizes = [0]  # of huge pages in bytes, 0 for ordinary ones
    with suppress(OSError):
        names = os.listdir("/sys/kernel/mm/hugepages")
        sizes += [int(n.removeprefix("hugepages-").removesuffix("kB")) << 10 for n in names]
    for size in sizes:
        flags = MFD_HUGETLB | (size.bit_length() - 1) << HUGE_SHIFT if size else 0
        with suppress(OSError):
            fd = os.memfd_create("pagewalk", flags | os.MFD_CLOEXEC)
            try:
                yield ("hugetlbfs" if size else "tmpfs"), fd
            finally:
                os.close(fd)

