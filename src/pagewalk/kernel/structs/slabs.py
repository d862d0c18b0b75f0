"""Kernel objects: the caches they are in, how many are in use, and who is charged for each.

A slab has a vector with a pointer for each of its objects to the obj_cgroup that is charged, null
if nobody is: struct slabobj_ext, or before 6.10 the bare pointer (mm/slub.c, mm/slab.h).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import PAGE
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.gather import gather, in_direct_map, read_names
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.memcgs import OBJEXTS, WORD_FLAGS, Memcgs, rows_behind
from pagewalk.model.columns import I64, U64, Bool, Rows, alike, join, take
from pagewalk.model.errors import NotInBtf, SourceUnavailable
from pagewalk.model.frames import ORDER_SHIFT, Frames, Kind

_NAME_MAX = 128
# A macro in include/linux/slab.h up to 6.8, so not in BTF.
_OLD_RECLAIMABLE = 0x00020000
_POINTER = 8
# So many runs of slabs are looked at together: of one page each, some 50,000 objects.
_RUNS = 1 << 10


class Caches(Rows):
    """Slab caches: a row for each address that was asked about.

    ``address`` u64 of the kmem_cache; ``size`` and ``object_size`` i64 bytes, that of an object
    with and without what the cache adds to it; ``reclaimable`` bool: the kernel can shrink it, so
    that it counts as SReclaimable; ``name``, or None and 0 elsewhere if it could not be read. The
    kernel merges caches whose objects are alike: they have the name of the first.
    """

    address: U64
    size: I64
    object_size: I64
    reclaimable: Bool
    name: tuple[str | None, ...]


class SlabSums(Rows):
    """What the slabs of a cache add up to, by ascending ``cache``, the address (u64; 0: unknown).

    All i64: ``pages`` and ``slabs``; ``objects`` that they have room for, of which at most
    ``inuse`` are allocated, and at least ``inuse - frozen``: objects on a CPU's own list of free
    ones count as in use, and ``frozen`` are those in slabs that have such a list.
    """

    cache: U64
    pages: I64
    slabs: I64
    objects: I64
    inuse: I64
    frozen: I64


class ObjectOwners(Rows):
    """Charged objects by whom they are charged to: ``objects`` i64 of ``cache`` (u64, address).

    ``objcg`` u64 is the address of the obj_cgroup. A row with ``objcg`` 0 has the objects of slabs
    whose vector could not be read: at most so many more are charged to somebody.
    """

    objcg: U64
    cache: U64
    objects: I64


class Charged(Rows):
    """Objects by group and cache: ``objects`` and ``size`` i64, bytes as the kernel charges them.

    ``group`` i64 is a row of the Memcgs, -1 if it is not known (any more); ``cache`` u64 the
    address. The kernel takes the charge in advance: up to a page less a byte, for each CPU.
    """

    group: I64
    cache: U64
    objects: I64
    size: I64


def read_caches(kernel: Kernel, caches: U64) -> Caches:
    """Return what the kmem_cache at each of ``caches`` (u64[n]) is; raises NotInBtf."""
    members = ("name", "size", "object_size", "flags")
    found, ok = gather(kernel, "kmem_cache", caches, members)
    names = read_names(kernel, found["name"], _NAME_MAX)
    return Caches(
        address=caches, size=found["size"].astype(np.int64),
        object_size=found["object_size"].astype(np.int64),
        reclaimable=found["flags"] & np.uint64(_reclaimable(kernel)) != 0,
        name=tuple(name if there else None for name, there in zip(names, ok.tolist(), strict=True)),
    )  # fmt: skip


def _reclaimable(kernel: Kernel) -> int:
    try:
        return 1 << kernel.btf.enumerators("_slab_flag_bits")["_SLAB_RECLAIM_ACCOUNT"]
    except NotInBtf:
        return _OLD_RECLAIMABLE


def slab_sums(kernel: Kernel, frames: Frames) -> SlabSums:
    """Return what the slabs among ``frames`` add up to by cache; raises NotInBtf.

    ``frames`` must have come from struct pages.
    """
    slabs = take(frames, frames.of(Kind.SLAB))
    many = _slabs(slabs)
    inuse, objects, frozen = (_part(kernel, slabs, name) for name in ("inuse", "objects", "frozen"))
    assert slabs.object is not None
    return _by_cache(SlabSums(
        slabs.object, slabs.pages, many, objects * many, inuse * many, frozen * inuse * many
    ))  # fmt: skip


def add_slab_sums(parts: list[SlabSums]) -> SlabSums:
    """Return the sums of ``parts`` (one or more) as one."""
    return _by_cache(join(parts))


def _by_cache(sums: SlabSums) -> SlabSums:
    cache, back = np.unique(sums.cache, return_inverse=True)
    amounts = (_sums(back, getattr(sums, name), len(cache)) for name in SlabSums.names[1:])
    return SlabSums(cache, *amounts)


def _sums(row: I64, amounts: I64, size: int) -> I64:
    # Exact: no sum of pages or objects reaches 2 ** 53.
    return np.bincount(row, weights=amounts, minlength=size).astype(np.int64)


def _slabs(slabs: Frames) -> I64:
    # How many slabs each run of frames holds.
    assert slabs.facts is not None
    return slabs.pages >> (slabs.facts >> ORDER_SHIFT).astype(np.int64)


def object_places(
    kernel: Kernel, direct_map: DirectMap, slabs: Frames, size: int
) -> Iterator[U64]:
    """Yield where objects can be in ``slabs``, whose caches all have objects of ``size`` bytes.

    Addresses, u64, of free objects too, in batches of the runs of frames. On a kernel that debugs
    slabs (slub_debug=Z) an object begins behind a red zone, and is not there.
    """
    assert slabs.facts is not None
    pages = np.int64(1) << (slabs.facts >> ORDER_SHIFT).astype(np.int64)
    objects = _part(kernel, slabs, "objects")
    for first in range(0, len(slabs), _RUNS):
        here = slice(first, first + _RUNS)
        run, nth = _each(slabs.pages[here] // pages[here])
        place = (slabs.pfn[here][run] + nth * pages[here][run]) * PAGE
        slab, nth = _each(objects[here][run])
        yield direct_map.addresses((place[slab] + nth * size).astype(np.uint64))


def _each(counts: I64) -> tuple[I64, I64]:
    # For each of `counts` things its row, and its number in that row.
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)


def _part(kernel: Kernel, slabs: Frames, name: str) -> I64:
    # A bit field of struct slab that lies in its word `counters`.
    place, word = kernel.btf.member("slab", name), kernel.btf.offset("slab", "counters")
    shift = 8 * (place.offset - word) + place.bit
    assert slabs.counts is not None
    field: U64 = slabs.counts >> np.uint64(shift) & np.uint64((1 << place.bits) - 1)
    return field.astype(np.int64)


# ---- who is charged for each object


def object_owners(kernel: Kernel, direct_map: DirectMap, frames: Frames) -> ObjectOwners:
    """Return whose the charged objects in the slabs among ``frames`` are.

    ``frames`` must have come from struct pages. Raises SourceUnavailable if this kernel keeps the
    owners of objects in another way.
    """
    entry = _entry(kernel)
    slabs = take(frames, frames.of(Kind.SLAB))
    assert slabs.owner is not None and slabs.object is not None
    vector = slabs.owner & ~WORD_FLAGS
    held = (slabs.owner & OBJEXTS != 0) & in_direct_map(direct_map, vector)
    caches, objects = slabs.object[held], _part(kernel, slabs, "objects")[held]
    parts = [ObjectOwners(caches[:0], caches[:0], objects[:0])]
    for rows, objcgs in _pointers(kernel, entry, vector[held], objects):
        cache = caches[rows]
        start = alike(cache, objcgs)
        many = np.diff(start, append=len(objcgs))
        parts.append(ObjectOwners(objcgs[start], cache[start], many))
    return add_object_owners(parts)


def add_object_owners(parts: list[ObjectOwners]) -> ObjectOwners:
    """Return ``parts`` (one or more) as one."""
    every = join(parts)
    caches, cache = np.unique(every.cache, return_inverse=True)
    objcgs, owner = np.unique(every.objcg, return_inverse=True)
    pair, back = np.unique(owner * len(caches) + cache, return_inverse=True)
    return ObjectOwners(
        objcgs[pair // max(1, len(caches))], caches[pair % max(1, len(caches))],
        _sums(back, every.objects, len(pair)),
    )  # fmt: skip


class _Entry(NamedTuple):
    # An element of the vector, and where in it the pointer is; bytes.
    size: int
    at: int


def _entry(kernel: Kernel) -> _Entry:
    if kernel.btf.has("slab", "stride"):
        raise SourceUnavailable(
            "owners of kernel objects", "this kernel keeps them in a way that is not known yet",
            "report it with the kernel's version",
        )  # fmt: skip
    if kernel.btf.has("slabobj_ext", "objcg"):
        return _Entry(kernel.btf.size("slabobj_ext"), kernel.btf.offset("slabobj_ext", "objcg"))
    return _Entry(_POINTER, 0)


def _pointers(
    kernel: Kernel, entry: _Entry, vectors: U64, objects: I64
) -> Iterator[tuple[I64, U64]]:
    # The pointers in the vectors that are not null, each with the row of its vector; for a vector
    # that cannot be read, as many zeros as it has elements.
    whole = PAGE // entry.size
    pieces = -(-objects // whole)
    row, nth = _each(pieces)
    first = nth * whole
    many = np.minimum(objects[row] - first, whole)
    address = vectors[row] + (first * entry.size).astype(np.uint64)
    for batch in kernel.memory.batches(address, (many * entry.size).astype(np.uint32)):
        here = slice(batch.first, batch.first + len(batch.errno))
        rows = np.repeat(row[here], many[here])
        words = batch.data.view(np.uint64).reshape(-1, entry.size // 8)[:, entry.at // 8].copy()
        lost = np.repeat(batch.errno != 0, many[here])
        words[lost] = 0
        told = lost | (words != 0)
        yield rows[told], words[told]


def charged_objects(
    kernel: Kernel, direct_map: DirectMap, groups: Memcgs, owners: ObjectOwners, caches: Caches
) -> Charged:
    """Return the objects of ``owners`` by group and cache, with the bytes that are charged.

    ``caches`` (see read_caches) has all caches of ``owners``, by ascending address.
    """
    sure = take(owners, owners.objcg != 0)
    objcgs, back = np.unique(sure.objcg, return_inverse=True)
    group = rows_behind(kernel, direct_map, groups, objcgs)[back]
    row = np.searchsorted(caches.address, sure.cache)
    pair, back = np.unique((group + 1) * len(caches) + row, return_inverse=True)
    objects = _sums(back, sure.objects, len(pair))
    # obj_full_size(): the place in the vector is charged with the object
    each = caches.size + _POINTER
    row = pair % max(1, len(caches))
    return Charged(
        pair // max(1, len(caches)) - 1, caches.address[row], objects, objects * each[row]
    )
