"""What the kernel itself says about a process: the oracle of the live tests.

Simple on purpose, and sharing no code with src: text parsed line by line, pagemap and
kpageflags read with one seek each. Formats: Documentation/filesystems/proc.rst and
Documentation/admin-guide/mm/pagemap.rst. Sizes in the text files stay in KiB, as printed.
"""

import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PAGE = 4096
# "start-end perms offset major:minor inode   name"; a name starts after the padding.
MAPS_LINE = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)", re.DOTALL
)

# pagemap.rst; for entries that are neither page nor swap see linux/swapops.h.
PRESENT, SWAP, FILE_OR_SHARED, GUARD, UFFD_WP, ONCE = (1 << b for b in (63, 62, 61, 58, 57, 56))
PFN = (1 << 55) - 1
SWAP_TYPE = 31
MARKER_TYPE = 31
MARKER_POISON = 2 << 5
# linux/kernel-page-flags.h
KPF_ANON, KPF_SWAPCACHE, KPF_SWAPBACKED, KPF_HEAD, KPF_TAIL = (1 << b for b in range(12, 17))
KPF_HUGE, KPF_KSM, KPF_THP, KPF_ZERO = (1 << b for b in (17, 21, 22, 24))


@dataclass(frozen=True)
class VmaSays:
    """One VMA as smaps (or maps) prints it.

    start, end: addresses. perms: like "rw-p". offset: bytes. name: with only newlines unescaped.
    fields: KiB by name, empty for maps. flags: the two-letter words of VmFlags.
    """

    start: int
    end: int
    perms: str
    offset: int
    device: tuple[int, int]
    inode: int
    name: str
    fields: dict[str, int]
    flags: tuple[str, ...]


def read_smaps(pid: int) -> list[VmaSays]:
    """Read /proc/PID/smaps: every VMA with its fields."""
    return parse_smaps(smaps_text(pid))


def smaps_text(pid: int) -> bytes:
    """Read the text of /proc/PID/smaps."""
    return _read(pid, "smaps")


def parse_smaps(text: bytes) -> list[VmaSays]:
    """Return every VMA in the text of smaps with its fields."""
    vmas: list[VmaSays] = []
    for line in text.split(b"\n")[:-1]:
        head = MAPS_LINE.fullmatch(line)
        if head:
            vmas.append(_vma(head))
            continue
        key, _, value = line.decode().partition(":")
        last = vmas[-1]
        if key == "VmFlags":
            vmas[-1] = VmaSays(**{**last.__dict__, "flags": tuple(value.split())})
        else:
            # Most end in " kB"; THPeligible and ProtectionKey are plain numbers.
            last.fields[key] = int(value.split()[0])
    return vmas


def read_maps(pid: int) -> list[VmaSays]:
    """Read /proc/PID/maps: every VMA, without fields."""
    return [_vma(head) for line in _lines(pid, "maps") if (head := MAPS_LINE.fullmatch(line))]


def read_rollup(pid: int) -> dict[str, int]:
    """Read /proc/PID/smaps_rollup: KiB by field."""
    pairs = (line.decode().partition(":") for line in _lines(pid, "smaps_rollup")[1:])
    return {key: int(value.split()[0]) for key, _, value in pairs}


def read_status(pid: int) -> dict[str, str]:
    """Read /proc/PID/status: the text of every line by its key."""
    pairs = (os.fsdecode(line).partition(":") for line in _lines(pid, "status"))
    return {key: value.strip(" \t") for key, _, value in pairs}


def read_status_kib(pid: int) -> dict[str, int]:
    """Read the lines of /proc/PID/status that end in kB: KiB by key (VmRSS, HugetlbPages...)."""
    status = read_status(pid)
    return {key: int(text.split()[0]) for key, text in status.items() if text.endswith(" kB")}


def read_statm(pid: int) -> dict[str, int]:
    """Read /proc/PID/statm: base pages by name (proc.rst, table 1-3)."""
    names = ("size", "resident", "shared", "text", "lib", "data", "dt")
    return dict(zip(names, map(int, _read(pid, "statm").split()), strict=True))


def read_stat_rss(pid: int) -> int:
    """Read the rss of /proc/PID/stat: base pages, and only approximate (proc.rst, field 24)."""
    # The name, second, may hold blanks and parentheses; the state after it is the third field.
    return int(_read(pid, "stat").rpartition(b") ")[2].split()[24 - 3])


def read_cached(path: str | Path) -> int:
    """Return how many bytes of a file are in the page cache, as fincore(1) says."""
    words = ["fincore", "--bytes", "--noheadings", "--output", "RES", path]
    return int(subprocess.run(words, check=True, capture_output=True).stdout)


def vma_at(vmas: list[VmaSays], addr: int) -> VmaSays:
    """Return the VMA that contains addr."""
    return next(vma for vma in vmas if vma.start <= addr < vma.end)


def sum_fields(vmas: list[VmaSays], start: int, end: int) -> dict[str, int]:
    """Sum the fields (KiB) of the VMAs in [start, end)."""
    total: Counter[str] = Counter()
    for vma in vmas:
        if start <= vma.start and vma.end <= end:
            total.update(vma.fields)
    return dict(total)


def read_pagemap(pid: int, start: int, end: int) -> np.ndarray:
    """Read the pagemap entries of [start, end): u64, one per base page."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        return _words(file.fileno(), start // PAGE, (end - start) // PAGE)


def read_counts(pfn: np.ndarray) -> np.ndarray:
    """Read /proc/kpagecount for each frame: u64."""
    return _frames("kpagecount", pfn)


def read_folio_flags(pfn: np.ndarray) -> np.ndarray:
    """Read /proc/kpageflags for each frame's head page: u64.

    Up to Linux 6.9 a tail page shows its own flags word, which lacks the folio's flags; but
    each page of a hugetlb folio has the hugetlb flag.
    """
    flags = _frames("kpageflags", pfn)
    tail = (flags & KPF_TAIL != 0) & (flags & KPF_HUGE == 0)
    heads = np.array([_head(int(frame)) for frame in pfn[tail]], np.uint64)
    flags[tail] = _frames("kpageflags", heads)
    return flags


def count_states(pid: int, start: int, end: int) -> dict[str, int]:
    """Count the base pages of [start, end) by state, from pagemap and kpageflags alone.

    The states are those of tests.targets.STATES; states that do not occur are absent. A
    VM_PFNMAP VMA reads as empty, whatever is in its page tables.
    """
    entry = read_pagemap(pid, start, end)
    here = entry & PRESENT != 0
    flags = np.zeros_like(entry)
    flags[here] = read_folio_flags(entry[here] & PFN)
    marker = ~here & (entry & SWAP != 0) & (entry & SWAP_TYPE == MARKER_TYPE)
    # The first line that matches a page determines its state.
    states = {
        "guard": entry & GUARD != 0,
        "poisoned": marker & (entry & MARKER_POISON != 0),
        "marker": marker,
        "swapped": ~here & (entry & SWAP != 0),
        "empty": ~here,
        "zero": flags & KPF_ZERO != 0,
        "hugetlb": flags & KPF_HUGE != 0,
        # A few frames read as 0 although they are in use (RAM that the kernel initialises late);
        # but bit 56 says that there is a page, and without bit 61 it is anonymous.
        "anon": (flags & KPF_ANON != 0)
        | ((flags == 0) & (entry & ONCE != 0) & (entry & FILE_OR_SHARED == 0)),
        "special": entry & FILE_OR_SHARED == 0,
        "shmem": flags & KPF_SWAPBACKED != 0,
        "file": here,
    }
    which = np.select(list(states.values()), list(range(len(states))))
    counts = np.bincount(which, minlength=len(states)).tolist()
    return {state: count for state, count in zip(states, counts, strict=True) if count}


def _vma(head: re.Match[bytes]) -> VmaSays:
    start, end, perms, offset, major, minor, inode, name = head.groups()
    return VmaSays(
        start=int(start, 16),
        end=int(end, 16),
        perms=perms.decode(),
        offset=int(offset, 16),
        device=(int(major, 16), int(minor, 16)),
        inode=int(inode),
        name=os.fsdecode(name.replace(rb"\012", b"\n")),
        fields={},
        flags=(),
    )


def _lines(pid: int, name: str) -> list[bytes]:
    # Names may hold anything but a newline: splitlines() would split them at \r.
    return _read(pid, name).split(b"\n")[:-1]


def _read(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def _frames(name: str, pfn: np.ndarray) -> np.ndarray:
    with open(f"/proc/{name}", "rb", buffering=0) as file:
        distinct = np.unique(pfn)
        runs = np.split(distinct, np.flatnonzero(np.diff(distinct) != 1) + 1)
        words = [_words(file.fileno(), int(run[0]), len(run)) for run in runs if len(run)]
    return np.concatenate([np.empty(0, np.uint64), *words])[np.searchsorted(distinct, pfn)]


def _head(pfn: int) -> int:
    # A folio of up to 512 pages is within an aligned block of 512.
    first = pfn - pfn % 512
    with open("/proc/kpageflags", "rb", buffering=0) as file:
        block = _words(file.fileno(), first, pfn - first + 1)
    return first + int(np.flatnonzero(block & KPF_HEAD)[-1])


def _words(fd: int, first: int, count: int) -> np.ndarray:
    chunks = b""
    while len(chunks) < 8 * count:
        chunk = os.pread(fd, 8 * count - len(chunks), 8 * first + len(chunks))
        if not chunk:
            raise EOFError(f"{len(chunks) // 8} of {count} words at {first}")
        chunks += chunk
    return np.frombuffer(chunks, np.uint64)
