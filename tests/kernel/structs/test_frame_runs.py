"""Runs of frames and their kinds, from struct pages made by hand; no kernel is read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pagewalk.kernel.structs.frame_kinds import frames_of
from pagewalk.kernel.structs.frame_runs import TORN, RawRuns, read_runs
from pagewalk.model.bits import kpf
from pagewalk.model.frames import FOLIO_MAPPED, MAPPED_WHOLE, ORDER_SHIFT, REFERENCED, Frames, Kind
from tests.kernel.structs.struct_pages import (
    HEAD,
    LRU,
    RESERVED,
    SLAB_FLAG,
    SWAPBACKED,
    SWAPCACHE,
    TYPES,
    Ram,
)

MAPPING, CACHE, MEMCG = 0xFFFF888100001000, 0xFFFF888100002000, 0xFFFF888100003000
ANON, MOVABLE, KSM = 1, 2, 3  # the low bits of a mapping
NEW_AND_OLD = pytest.mark.parametrize("new", [True, False], ids=["6.18", "6.1"])


class Told(NamedTuple):
    """What is to be told of a frame."""

    kind: Kind
    mapcount: int = 0
    owner: int = 0
    object: int = 0


def runs_of(ram: Ram, path: Path) -> RawRuns:
    frames, layout = ram.open(path / "core")
    return read_runs(frames, layout, ram.first, ram.first + len(ram))


def scan(ram: Ram, path: Path) -> Frames:
    frames, layout = ram.open(path / "core")
    return frames_of(layout, read_runs(frames, layout, ram.first, ram.first + len(ram)))


def told(frames: Frames) -> list[Told]:
    """Return what is told of each frame, one by one."""
    assert frames.owner is not None
    assert frames.object is not None
    found = []
    for kind, count, owner, object_, pages in zip(
        frames.kind.tolist(), frames.mapcount.tolist(), frames.owner.tolist(),
        frames.object.tolist(), frames.pages.tolist(), strict=True,
    ):  # fmt: skip
        found += [Told(Kind(kind), count, owner, object_)] * pages
    return found


def by_hand(ram: Ram, pfn: int) -> Told:
    """Say what a frame is, reading struct pages one at a time, as the kernel's own tests do."""
    if not any(ram.get(pfn, name) for name in ("flags", "compound", "mapping", "count", "refs")):
        return Told(Kind.DEFERRED)
    if ram.get(pfn, "flags") & RESERVED:
        return Told(Kind.RESERVED, max(ram.get(pfn, "count") + 1, 0))
    if in_free_block(ram, pfn):
        return Told(Kind.BUDDY)
    compound = ram.get(pfn, "compound")
    if compound & 1:
        head = ram.first + (compound - 1 - ram.place(ram.first)) // ram.size
    elif ram.get(pfn, "flags") & HEAD:
        head = pfn
    else:
        return of_page(ram, pfn, pfn, large=False)
    return of_page(ram, head, pfn, large=True)


def in_free_block(ram: Ram, pfn: int) -> bool:
    for order in range(11):
        head = pfn & ~((1 << order) - 1)
        if (head >= ram.first and ram.get(head, "count") == ram.type_word("buddy")
                and ram.get(head, "private") >= order):
            return True
    return False


def of_page(ram: Ram, head: int, pfn: int, *, large: bool) -> Told:
    flags, mapping, owner = (ram.get(head, name) for name in ("flags", "mapping", "memcg"))
    type_of = ram.get(head, "count")
    if flags & SLAB_FLAG and not ram.new:
        return Told(Kind.SLAB, 0, owner, ram.get(head, "cache"))
    hugetlb = large and (
        type_of == ram.type_word("hugetlb") if ram.new else ram.get(head + 1, "dtor") == 2
    )
    own = max(ram.get(pfn, "count"), -1) + 1
    count = own + (ram.get(head + 1, "entire") + 1 if large else 0)
    if hugetlb:
        return Told(Kind.HUGETLB, count, owner, 0 if mapping & 3 or ram.new else mapping)
    for name, number in TYPES.items() if ram.new else ():
        if type_of & 0xFF000000 == number << 24:
            object_ = ram.get(head, "cache") if name == "slab" else 0
            return Told(OF_TYPE[name], 0, owner, object_)
    if not ram.new and type_of < -128:
        name = next(n for n in ("table", "offline", "guard") if type_of == ram.type_word(n))
        return Told(OF_TYPE[name], 0, owner)
    if mapping & 3:
        kinds = {ANON: Kind.ANON, KSM: Kind.KSM, MOVABLE: Kind.ZSMALLOC}
        return Told(kinds[mapping & 3], count, owner)
    if mapping:
        kind = Kind.SHMEM if flags & SWAPBACKED else Kind.FILE
        return Told(kind, count, owner, mapping)
    if flags & SWAPCACHE and flags & SWAPBACKED:
        return Told(Kind.SWAP_CACHE, count, owner)
    if ram.get(head, "refs") <= 0:
        return Told(Kind.CPU_LIST, count, owner)
    if large and not ram.new and ram.get(head, "refs") == 1:
        return Told(Kind.LARGE_KMALLOC, count, owner)
    return Told(Kind.KERNEL, count, owner)


OF_TYPE = {
    "table": Kind.PAGE_TABLE, "offline": Kind.OFFLINE, "guard": Kind.GUARD, "slab": Kind.SLAB,
    "zsmalloc": Kind.ZSMALLOC, "unaccepted": Kind.UNACCEPTED,
    "large_kmalloc": Kind.LARGE_KMALLOC,
}  # fmt: skip


def random_ram(seed: int, *, new: bool, frames: int = 1 << 11, size: int = 64) -> Ram:
    """Return frames filled with one of everything, over and over, in random order and sizes."""
    dice = random.Random(seed)
    ram = Ram(frames, new=new, first=1 << 12, size=size)
    at = ram.first
    while at < ram.first + frames:
        order = min(dice.choice([0, 0, 0, 1, 3, 5, 9]), (at & -at).bit_length() - 1)
        while at + (1 << order) > ram.first + frames:
            order -= 1
        put_something(ram, at, order, dice)
        at += 1 << order
    return ram


def put_something(ram: Ram, pfn: int, order: int, dice: random.Random) -> None:
    owner = dice.choice([0, MEMCG, MEMCG | 2])
    flags = dice.choice([0, LRU, LRU | SWAPBACKED, LRU | SWAPBACKED | SWAPCACHE])
    mapping = dice.choice([0, MAPPING, MAPPING | ANON, MAPPING | KSM, MAPPING | MOVABLE])
    refs, count = dice.choice([0, 1, 2, 77]), dice.choice([-1, -1, 0, 5])
    what = dice.choice(["free", "slab", "type", "blank", "reserved", "plain", "plain", "hugetlb"])
    fields = {"flags": flags, "mapping": mapping, "refs": refs, "memcg": owner}
    if what == "free":
        for tail in range(pfn + 1, pfn + (1 << order)):  # left over from before
            ram.put(tail, flags=flags, mapping=mapping)
        ram.typed(pfn, "buddy", private=order)
    elif what == "type":
        names = ["table", "offline", "guard"] + ["unaccepted", "zsmalloc"] * ram.new
        for one in range(pfn, pfn + (1 << order)):
            ram.typed(one, dice.choice(names), memcg=owner, refs=1)
    elif what in ("blank", "reserved"):
        for one in range(pfn, pfn + (1 << order)):
            ram.put(one, count=0 if what == "blank" else count,
                    flags=0 if what == "blank" else RESERVED)
    elif what == "slab":
        put_slab(ram, pfn, order, owner)
    elif order == 0:
        ram.put(pfn, count=count, lru=ram.place(pfn) + 0x1000, **fields)
    else:
        entire = dice.choice([-1, 0, 3])
        large = max(entire, dice.choice([-1, 6]))
        ram.folio(pfn, order, entire=entire, large=large, hugetlb=what == "hugetlb", **fields)
        if large >= 0 and what != "hugetlb":
            ram.poke(pfn + dice.randrange(1 << order), "count", count)


def put_slab(ram: Ram, pfn: int, order: int, owner: int) -> None:
    fields = {"counters": 7, "refs": 1, "memcg": owner | 1, "cache": CACHE}
    if ram.new:
        fields["count"] = ram.type_word("slab")
    else:
        fields["flags"] = SLAB_FLAG
    if order:
        ram.folio(pfn, order, **fields)
    else:
        ram.put(pfn, **fields)


@NEW_AND_OLD
@pytest.mark.parametrize("seed", range(8))
def test_frames_are_what_they_are_read_as_by_hand(tmp_path: Path, new: bool, seed: int) -> None:
    ram = random_ram(seed, new=new)
    found = told(scan(ram, tmp_path))
    for row, one in enumerate(found):
        assert one == by_hand(ram, ram.first + row), f"frame {ram.first + row:#x}"
    assert len(found) == len(ram)
    assert len({one.kind for one in found}) >= 12


@pytest.mark.parametrize("size", [72, 80, 96])
def test_struct_pages_of_another_size(tmp_path: Path, size: int) -> None:
    # They do not divide a page (KMSAN, LAST_CPUPID_NOT_IN_PAGE_FLAGS): one may lie on two.
    ram = random_ram(size, new=True, size=size)
    found = told(scan(ram, tmp_path))
    assert found == [by_hand(ram, ram.first + row) for row in range(len(ram))]


def test_runs_go_on_as_long_as_nothing_changes(tmp_path: Path) -> None:
    ram = Ram(64, first=1 << 12)
    for pfn in range(ram.first + 8, ram.first + 40):
        mapping = MAPPING if pfn < ram.first + 20 else MAPPING + 0x1000
        ram.put(pfn, mapping=mapping, flags=LRU, refs=2 + pfn % 3)
    found = scan(ram, tmp_path)
    assert (found.pfn - ram.first).tolist() == [0, 8, 20, 40]
    assert found.pages.tolist() == [8, 12, 20, 24]
    assert found.object is not None
    assert found.object.tolist() == [0, MAPPING, MAPPING + 0x1000, 0]


@NEW_AND_OLD
def test_the_rest_of_a_block_is_not_free(tmp_path: Path, new: bool) -> None:
    # alloc_pages() without __GFP_COMP: the first page has the reference, the others none, and their
    # list nodes are as they were at boot.
    ram = Ram(32, new=new, first=1 << 12)
    ram.put(ram.first + 8, refs=1)
    for pfn in range(ram.first + 9, ram.first + 16):
        ram.put(pfn, lru=ram.place(pfn) + 8, previous=ram.place(pfn) + 8)
    ram.put(ram.first + 20, refs=1)
    for pfn in range(ram.first + 21, ram.first + 24):
        ram.put(pfn)
    ram.put(ram.first + 27, refs=1)
    ram.put(ram.first + 28)
    ram.put(ram.first + 29)  # with that it is no block
    kinds = [one.kind for one in told(scan(ram, tmp_path))]
    free, kernel, rest = Kind.CPU_LIST, Kind.KERNEL, Kind.BLOCK_TAIL
    expected = [free] * 8 + [kernel] + [rest] * 7 + [free] * 4 + [kernel] + [rest] * 3 + [free] * 3
    assert kinds == [*expected, kernel, *[free] * 4]


def test_a_free_block_swallows_what_is_left_of_smaller_ones(tmp_path: Path) -> None:
    ram = Ram(64, first=1 << 12)
    for pfn, order in ((0, 4), (4, 2), (8, 3), (16, 0), (17, 0), (32, 5)):
        ram.typed(ram.first + pfn, "buddy", private=order)
    found = scan(ram, tmp_path)
    buddy, free = Kind.BUDDY, Kind.CPU_LIST
    assert [one.kind for one in told(found)] == [buddy] * 18 + [free] * 14 + [buddy] * 32


def test_an_order_that_no_block_has_ends_at_the_largest(tmp_path: Path) -> None:
    ram = Ram(1 << 11, first=1 << 12)
    ram.typed(ram.first, "buddy", private=1 << 63)
    found = scan(ram, tmp_path)
    assert found.kind.tolist() == [Kind.BUDDY.value, Kind.CPU_LIST.value]
    assert found.pages.tolist() == [1 << 10, 1 << 10]


@NEW_AND_OLD
def test_facts_about_folios(tmp_path: Path, new: bool) -> None:
    ram = Ram(64, new=new, first=1 << 12)
    fields = {"flags": LRU | SWAPBACKED, "mapping": MAPPING | ANON, "refs": 9}
    ram.folio(ram.first, 4, entire=1, large=1, **fields)
    ram.folio(ram.first + 16, 4, large=0, **fields)
    ram.poke(ram.first + 18, "count", 0)
    ram.folio(ram.first + 32, 4, hugetlb=True, entire=0, large=0, mapping=MAPPING | ANON, refs=3)
    ram.folio(ram.first + 48, 4, hugetlb=True)
    found = scan(ram, tmp_path)
    assert found.facts is not None
    facts = np.repeat(found.facts, found.pages)
    assert (facts >> ORDER_SHIFT == 4).all()
    low = (facts & np.uint8(7)).tolist()
    # Before 6.2 nothing says whether a folio is mapped in part.
    some = FOLIO_MAPPED if new else 0
    assert low[:32] == [MAPPED_WHOLE | FOLIO_MAPPED] * 16 + [some] * 16
    assert low[32:] == [MAPPED_WHOLE | FOLIO_MAPPED | REFERENCED] * 16 + [0] * 16
    counts = np.repeat(found.mapcount, found.pages).tolist()
    assert counts == [2] * 16 + [0, 0, 1] + [0] * 13 + [1] * 16 + [0] * 16


def test_a_fake_head_of_an_optimised_hugetlb_folio_is_a_tail(tmp_path: Path) -> None:
    # The structs of its second page of structs are those of the first (page_fixed_fake_head).
    ram = Ram(256, first=1 << 12)
    ram.folio(ram.first, 8, hugetlb=True, entire=0, large=0, refs=1, mapping=MAPPING)
    for at in range(64 * 64, len(ram.bytes), 64 * 64):
        ram.bytes[at : at + 64 * 64] = ram.bytes[: 64 * 64]
    found = scan(ram, tmp_path)
    assert found.kind.tolist() == [Kind.HUGETLB.value]
    assert (found.pages.tolist(), found.mapcount.tolist()) == ([256], [1])


@pytest.mark.parametrize("how", ["head gone", "second page elsewhere", "order"])
def test_a_folio_in_pieces_is_unknown(tmp_path: Path, how: str) -> None:
    ram = Ram(16, first=1 << 12)
    ram.folio(ram.first, 3, mapping=MAPPING, flags=LRU, refs=1)
    if how == "head gone":
        ram.poke(ram.first, "flags", LRU)
    elif how == "order":
        ram.poke(ram.first + 1, "order", 63)
    else:
        ram.poke(ram.first + 1, "compound", ram.place(ram.first + 4) + 1)
    runs = runs_of(ram, tmp_path)
    torn = np.repeat(runs.state & TORN != 0, runs.pages)
    assert torn[2:8].all()
    assert not torn[8:].any()
    kinds = [one.kind for one in told(scan(ram, tmp_path))]
    assert set(kinds[2:8]) == {Kind.UNKNOWN}


def test_memory_without_struct_pages_is_unknown(tmp_path: Path) -> None:
    # A hole in the map of memory; the core file ends where it begins.
    ram = Ram(128, first=1 << 12)
    frames, layout = ram.open(tmp_path / "core")
    found = frames_of(layout, read_runs(frames, layout, ram.first, ram.first + 256))
    assert found.kind.tolist() == [Kind.CPU_LIST.value, Kind.UNKNOWN.value]
    assert found.pages.tolist() == [128, 128]


def test_flags_are_those_of_kpageflags_that_are_kept(tmp_path: Path) -> None:
    ram = Ram(4, first=1 << 12)
    every = LRU | SWAPBACKED | SWAPCACHE
    ram.put(ram.first, flags=every | 1 << 60, mapping=MAPPING | KSM, refs=1)
    ram.put(ram.first + 1, flags=SWAPCACHE, mapping=MAPPING, refs=1)  # another meaning on a file
    found = scan(ram, tmp_path)
    assert found.flags[0] == kpf("lru", "swapbacked", "swapcache", "anon", "ksm")
    assert found.flags[1] == 0


def test_without_memory_cgroups_nobody_is_charged(tmp_path: Path) -> None:
    ram = Ram(4, first=1 << 12)
    ram.put(ram.first, mapping=MAPPING, refs=1, memcg=MEMCG)
    frames, layout = ram.open(tmp_path / "core")
    found = read_runs(frames, layout._replace(memcg=None), ram.first, ram.first + 4)
    assert found.memcg.tolist() == [0, 0]
