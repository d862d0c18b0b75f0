"""All of RAM as runs of frames, from /proc/kpageflags, kpagecount and kpagecgroup.

For kernels whose memory cannot be read: it takes root and no more, but twenty-five times as long as
kernel/scan, and tells less. Sources: fs/proc/page.c, mm/memcontrol.c (page_cgroup_ino).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import numpy as np

from pagewalk.model.bits import kpf
from pagewalk.model.columns import I64, U8, U64, alike
from pagewalk.model.errors import SourceUnavailable
from pagewalk.model.frames import FLAGS, Frames, Kind
from pagewalk.proc import frames
from pagewalk.proc.files import to_do
from pagewalk.proc.frames import (
    HEAD,
    KSM,
    NOPAGE,
    TAIL,
    find_heads,
    open_frames,
    open_words,
    read_kpage,
    read_slowly,
)
from pagewalk.proc.iomem import cut
from pagewalk.proc.pagemap import find_pfn

CHUNK = 1 << 16  # frames a read: half a megabyte of each file

# What a frame is if it has all of the first bits and none of the second; the last rule that holds
# decides.
RULES = (
    (kpf("lru"), kpf("anon", "swapbacked"), Kind.FILE),
    (kpf("lru", "swapbacked"), kpf("anon"), Kind.SHMEM),
    (kpf("swapcache"), kpf("anon"), Kind.SWAP_CACHE),
    (kpf("anon"), kpf(), Kind.ANON),
    (KSM, kpf(), Kind.KSM),
    (kpf("huge"), kpf(), Kind.HUGETLB),
    (kpf("buddy"), kpf(), Kind.BUDDY),
    (kpf("slab"), kpf(), Kind.SLAB),
    (kpf("pgtable"), kpf(), Kind.PAGE_TABLE),
    (kpf("offline"), kpf(), Kind.OFFLINE),
    (kpf("reserved"), kpf(), Kind.RESERVED),
    (NOPAGE, kpf(), Kind.UNKNOWN),
)


def scan_kpage(ranges: list[tuple[int, int]]) -> Iterator[Frames]:
    """Yield the frames of ``ranges``, [first, last) PFNs, by ascending frame, a batch a read.

    Frames that these files do not tell apart are ``KERNEL``: those that are on a per-CPU list, were
    never initialised (which have a mapcount of 1 here), or are the rest of a block; large kmalloc,
    zsmalloc and guard pages; pages of files that are on no LRU list. Where the kernel's KSM bit
    means nothing (6.12, see open_frames), ``KSM`` is ``ANON``. ``owner`` is the inode of a cgroup,
    of the nearest one that still exists, and None if there is no kpagecgroup; ``facts``, ``object``
    and ``counts`` are None. Raises SourceUnavailable if the files may not be read.
    """
    with ExitStack() as held:
        opened = _open(held)
        owners = None
        with suppress(OSError):  # a kernel without memory cgroups, or something hides it
            owners = open_words("/proc/kpagecgroup")
            held.callback(os.close, owners)
        for first, last in cut(ranges, CHUNK):
            yield _read(opened, owners, first, last)


def _open(held: ExitStack) -> frames.Frames:
    try:
        opened = open_frames(own=find_pfn(np.ones(1, np.uint64)) or None)
    except OSError as error:
        why = f"cannot read {error.filename}: {error.strerror}"
        raise SourceUnavailable("procfs", why, to_do(error, "run as root")) from error
    held.callback(opened.close)
    return opened


def _read(opened: frames.Frames, owners: int | None, first: int, last: int) -> Frames:
    flags = np.full(last - first, NOPAGE)  # as it stays behind the end: memory that was unplugged
    read_slowly(opened.flags, first * 8, flags.data.cast("B"))
    # Free frames have no count and no owner: most of an idle machine need not be read again.
    used = np.flatnonzero(flags & kpf("buddy") == 0)
    count = _spread(opened.counts, first, used, len(flags)).astype(np.int32)
    owner = None if owners is None else _spread(owners, first, used, len(flags))
    _give_tails_their_heads(opened.flags, first, flags, owner)
    if not opened.ksm:
        flags &= ~KSM
    # Only what tells kinds apart, and what is kept of it: the rest would cut runs short.
    flags &= _TOLD
    start = alike(flags, count, owner)
    return Frames(
        pfn=start + first, pages=np.diff(start, append=last - first), kind=_kinds(flags[start]),
        flags=flags[start] & FLAGS, facts=None, mapcount=count[start],
        owner=None if owner is None else owner[start], object=None, counts=None,
    )  # fmt: skip


_TOLD = FLAGS | np.bitwise_or.reduce([told for told, _, _ in RULES])


def _spread(fd: int, first: int, used: I64, size: int) -> U64:
    words = np.zeros(size, np.uint64)
    words[used] = read_kpage(fd, (used + first).astype(np.uint64))
    return words


def _give_tails_their_heads(fd: int, first: int, flags: U64, owner: U64 | None) -> None:
    # What a large folio's pages share is only told of its head on some kernels.
    tails = np.flatnonzero(flags & TAIL)
    heads = np.maximum.accumulate(np.where(flags & HEAD != 0, np.arange(len(flags)), -1))[tails]
    early = tails[heads < 0]  # of a folio that begins before this read
    tails, heads = tails[heads >= 0], heads[heads >= 0]
    flags[tails] = flags[heads]
    if owner is not None:
        owner[tails] = owner[heads]
    if len(early):
        (found,) = find_heads(fd, early[:1].astype(np.uint64) + np.uint64(first))
        flags[early] = found or flags[early]


def _kinds(flags: U64) -> U8:
    kind = np.full(len(flags), Kind.KERNEL.value, np.uint8)
    for has, lacks, value in RULES:
        kind[flags & (has | lacks) == has] = value.value
    return kind
