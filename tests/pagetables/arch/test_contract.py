"""What every paging format keeps to, by name: a new one is tested by its row in ARCHES."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from pagewalk.model.columns import U64, Flag
from pagewalk.model.errors import BadRequest
from pagewalk.model.soft import TYPES, swap_types
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.format import PGD, PTE, Arch, Era, Level

RELEASES = ((6, 1), (6, 12), (6, 18))
TYPES_OF = {release: swap_types(release, {"CONFIG_MIGRATION"}) for release in RELEASES}
RIGHTS = Flag.WRITE | Flag.USER | Flag.EXEC


def formats() -> Iterator[Arch]:
    for arch in ARCHES.values():
        for release in RELEASES:
            for levels in arch.depths:
                yield arch.on(levels, arch.era_of(release, b"", TYPES_OF[release]))


def label(arch: Arch) -> str:
    return f"{arch.name}, {len(arch.levels)} levels, {arch.era.release}"


every_format = pytest.mark.parametrize("arch", list(formats()), ids=label)


def words() -> U64:
    """Return single bits, pairs of them, their inverses, and words of no plan at all."""
    bits = np.uint64(1) << np.arange(64, dtype=np.uint64)
    pairs = (bits[:, None] | bits[None, :]).reshape(-1)
    random = np.random.default_rng(11).integers(0, 1 << 64, 4000, np.uint64)
    return np.concatenate([np.zeros(1, np.uint64), pairs, ~pairs, random])


WORDS = words()


def of_kind(arch: Arch, level: Level) -> tuple[U64, U64, U64]:
    """Return WORDS as entries of ``level``: tables, leaves, and what breaks the format."""
    entries = WORDS[~arch.none(WORDS, level)]
    table = arch.table(entries, level) & (level.number > PTE)
    tables, rest = entries[table], entries[~table]
    reserved = arch.reserved(rest, level)
    return tables, rest[~reserved], rest[reserved]


def test_every_method_is_there() -> None:
    for name, arch in ARCHES.items():
        assert not inspect.isabstract(arch)
        assert arch.name == name
        for method in Arch.__abstractmethods__:
            asked, given = (inspect.signature(getattr(of, method)) for of in (Arch, arch))
            assert asked.parameters.keys() == given.parameters.keys()


@every_format
def test_the_levels_are_joined_without_gaps_down_to_the_page(arch: Arch) -> None:
    upper, lower = arch.levels[:-1], arch.levels[1:]
    for above, below in zip(upper, lower, strict=True):
        assert above.shift == below.shift + below.bits
        assert above.number > below.number
    assert arch.levels[0].number == PGD
    assert arch.levels[-1] == arch.level(PTE)
    assert arch.levels[-1].shift == arch.page_shift
    # a table is a page of 8-byte entries, of which the top one's upper half is the kernel's
    assert {8 << level.bits for level in arch.levels[1:]} == {1 << arch.page_shift}
    assert 8 << arch.levels[0].bits <= 1 << arch.page_shift


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_other_numbers_of_levels_are_refused(arch: type[Arch]) -> None:
    with pytest.raises(BadRequest, match="no 99-level page tables"):
        arch.on(99, Era((6, 18), 52))


@every_format
def test_a_format_is_a_value(arch: Arch) -> None:
    same = type(arch).on(len(arch.levels), arch.era)
    other = type(arch).on(len(arch.levels), arch.era._replace(max_pfn=7))
    assert same == arch != other
    assert len({same, arch, other}) == 2
    with pytest.raises(FrozenInstanceError):
        arch.era = other.era  # type: ignore[misc]


@every_format
def test_columns_in_and_columns_out(arch: Arch) -> None:
    for level in arch.levels:
        for entry in (WORDS, WORDS[:0]):
            before = entry.copy()
            found = [
                (arch.none(entry, level), np.bool_), (arch.table(entry, level), np.bool_),
                (arch.reserved(entry, level), np.bool_), (arch.rights(entry, level), np.uint32),
                (arch.address(entry), np.uint64),
            ]
            flags, pfn = arch.decode(entry, level)
            kind, offset = arch.soft(entry)
            found += [(flags, np.uint32), (pfn, np.uint64), (kind, np.uint64), (offset, np.uint64)]
            assert [(len(column), column.dtype) for column, _ in found] == [
                (len(entry), dtype) for _, dtype in found
            ]
            assert np.array_equal(entry, before)


@every_format
def test_a_table_of_zeros_is_empty(arch: Arch) -> None:
    for level in arch.levels:
        assert arch.none(np.zeros(8, np.uint64), level).all()
        assert arch.describe(0, level)[0] == ("kind", "none")


@every_format
def test_an_entry_above_the_page_names_a_table_at_an_address(arch: Arch) -> None:
    for level in arch.levels[:-1]:
        tables, _, _ = of_kind(arch, level)
        assert len(tables)
        rights = arch.rights(tables, level)
        assert not (rights & ~np.uint32(RIGHTS)).any()
        assert len(np.unique(rights)) > 1
        address = arch.address(tables)
        assert not (address & np.uint64((1 << arch.page_shift) - 1)).any()
        assert np.array_equal(address, tables & np.uint64(arch.frame_mask))


@every_format
def test_a_leaf_is_a_page_or_a_software_entry(arch: Arch) -> None:
    for level in arch.levels:
        _, leaves, _ = of_kind(arch, level)
        if not len(leaves):
            assert level.number > 3  # nothing ends a walk above the PUD
            continue
        flags, pfn = arch.decode(leaves, level)
        present = flags & np.uint32(Flag.PRESENT) != 0
        assert present.any()
        assert not present.all()
        assert np.array_equal(~present, flags & np.uint32(Flag.SOFT) != 0)
        assert ((flags & np.uint32(Flag.HUGE) != 0) == (level.number > PTE)).all()
        pages = 1 << level.shift - arch.page_shift
        assert not (pfn[present] % np.uint64(pages)).any()
        hidden = flags & np.uint32(Flag.PROT_NONE) != 0
        assert not (flags[hidden] & np.uint32(RIGHTS)).any()


@every_format
def test_software_entries_are_of_the_kernels_types(arch: Arch) -> None:
    leaves = of_kind(arch, arch.levels[-1])[1]
    flags, pfn = arch.decode(leaves, arch.levels[-1])
    soft = leaves[flags & np.uint32(Flag.SOFT) != 0]
    kind, offset = arch.soft(soft)
    assert int(kind.max()) < TYPES
    types = arch.era.swap
    flags, pfn = arch.decode(soft, arch.levels[-1])
    assert np.array_equal(flags & np.uint32(Flag.SWAP) != 0, kind < np.uint64(types.swapfiles))
    moving = np.isin(kind, list(types.migration))
    assert moving.any()
    assert np.array_equal(flags & np.uint32(Flag.MIGRATION) != 0, moving)
    assert not pfn[~moving].any()
    assert (pfn[moving] <= offset[moving]).all()


@every_format
def test_plain_bits_are_those_of_ordinary_pages(arch: Arch) -> None:
    bits_set, bits_clear = arch.plain()
    assert bits_set.bit_count() == 1
    assert not bits_set & bits_clear
    small = arch.levels[-1]
    plain = WORDS & np.uint64(bits_set | bits_clear) == np.uint64(bits_set)
    flags, _ = arch.decode(WORDS, small)
    assert not arch.none(WORDS[plain], small).any()
    assert not arch.reserved(WORDS[plain], small).any()
    # and of no others: what can be used and has a normal struct page
    page = np.uint32(Flag.PRESENT)
    unlike = np.uint32(Flag.PRESENT | Flag.SPECIAL | Flag.DEVICE | Flag.PROT_NONE | Flag.SOFT)
    assert np.array_equal(plain, flags & unlike == page)


@every_format
def test_every_entry_is_told_in_words_of_the_legend(arch: Arch) -> None:
    known = {row.name for row in arch.legend} | {f"bit{n}" for n in range(64)}
    assert all(row.doc and row.since for row in arch.legend)
    for level in arch.levels:
        tables, leaves, reserved = of_kind(arch, level)
        for kind, entries in (("table", tables), ("", leaves), ("reserved", reserved)):
            for entry in entries[:500].tolist():
                said = arch.describe(entry, level)
                assert said[0][0] == "kind"
                assert kind in str(said[0][1])
                assert set(str(dict(said)["bits"]).split()) <= known


@every_format
def test_the_bounds_of_frames(arch: Arch) -> None:
    bits = arch.era.physical_bits
    assert arch.last_frame == (1 << bits - arch.page_shift) - 2
    assert arch.frame_mask | arch.era.encryption == arch.frame_mask ^ arch.era.encryption
    small = type(arch).on(len(arch.levels), arch.era._replace(max_pfn=99))
    assert (small.last_ram_frame, small.last_page_frame) == (99, 99)
    wide = type(arch).on(len(arch.levels), arch.era._replace(max_pfn=99, devices=True))
    assert (wide.last_ram_frame, wide.last_page_frame) == (99, arch.last_frame)


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_an_era_is_of_the_release_and_the_cpu(arch: type[Arch]) -> None:
    for release in RELEASES:
        era = arch.era_of(release, b"", TYPES_OF[release])
        assert (era.release, era.swap) == (release, TYPES_OF[release])
        assert (era.max_pfn, era.devices, era.encryption) == (None, False, 0)


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_the_direct_map_can_be_looked_for(arch: type[Arch]) -> None:
    assert arch.direct_map_step % (1 << arch.page_shift) == 0
    assert arch.direct_map_size.keys() == arch.depths.keys()
    assert all(size % arch.direct_map_step == 0 for size in arch.direct_map_size.values())


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_vm_flags_of_the_architectures_own(arch: type[Arch]) -> None:
    for release in RELEASES:
        codes = arch.vm_flag_codes(release)
        assert all(len(code) in (0, 2) for code in codes.values())
        assert set(codes) <= set(range(32, 64))
    keys = {arch.protection_key(1 << bit) for bit in range(64)}
    assert 0 in keys
    assert arch.protection_key(0) == 0
