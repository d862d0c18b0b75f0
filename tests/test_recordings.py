"""One recorded walk is counted by the rules of the kernel it is of, not of the one that runs this.

tests/recordings holds a process with the same regions as 6.1 and as 6.18 saw it, and each kernel's
smaps. Its regions look the same to a walk in both; what smaps makes of them differs.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import pagewalk
from pagewalk.account.smaps import SwapUsers, by_field, protection_key, vmflags
from pagewalk.account.table import SMAPS_FIELDS, Table
from pagewalk.model.columns import Backing, Pages
from pagewalk.model.facts import Facts
from pagewalk.proc.stall import Stall
from pagewalk.sources.outcome import Outcome
from tests.columns import Columns
from tests.kernel_says import PAGE, VmaSays, vma_at
from tests.recordings import Recording, load

KERNELS = ("6.1", "6.18")
VM_LOCKED = np.uint64(0x2000)  # include/linux/mm.h
# mlock2(MLOCK_ONFAULT): its bit had no letters before 6.8.
ON_FAULT = "locked_on_fault"


@cache
def recorded(kernel: str) -> Recording:
    """Return the recording of a kernel."""
    return load(kernel)


def count(walked: Recording, of: Recording) -> Table:
    """Return the Table of the walk of ``walked``, counted as the kernel of ``of`` counts."""
    vmas = walked.vmas
    assert vmas.flags is not None
    before = Outcome(
        Stall(), locked=vmas.flags & VM_LOCKED != 0, shmem_swap=np.zeros(len(vmas), np.int64),
        counts_hwpoison=of.counts_hwpoison,
    )
    facts = Facts("x86_64", of.release, PAGE, 2, frozenset, lambda: True)
    space = Columns(vmas, walked.pages, facts, before, tables=True, young=True)
    none = np.zeros(0, np.uint64)
    return by_field(pagewalk.walk(space, Pages, holes=True), SwapUsers(none, none, None))


def ours(table: Table, row: int, says: VmaSays) -> VmaSays:
    """Return what smaps says of a VMA, with our value in each field that is an amount."""
    fields, poisoned = dict(says.fields), table.columns["poisoned"]
    assert poisoned is not None
    for field in SMAPS_FIELDS.keys() & fields.keys():
        column = table.columns[SMAPS_FIELDS[field]]
        assert column is not None, field
        fields[field] = int(column[row]) >> 10
    if table.vmas.backing[row] == Backing.ANON.value:
        # `anon` is what is present; smaps counts what was lost too (docs/counting.md).
        fields["Anonymous"] += int(poisoned[row]) >> 10
    key = protection_key(table, row)
    assert key is not None
    return VmaSays(**{
        **says.__dict__, "fields": fields | {"ProtectionKey": key},
        "flags": tuple(vmflags(table, row) or ()),
    })


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_recorded_walk_gives_the_smaps_of_its_own_kernel(kernel: str) -> None:
    here = recorded(kernel)
    table = count(here, here)
    assert [ours(table, row, says) for row, says in enumerate(here.smaps)] == here.smaps


@pytest.mark.parametrize(("walked", "counted"), [KERNELS, KERNELS[::-1]])
def test_the_same_walk_gives_the_smaps_of_each_kernel(walked: str, counted: str) -> None:
    here, there = recorded(walked), recorded(counted)
    table = count(here, there)
    assert here.regions == there.regions
    for start in there.regions.values():
        says = vma_at(there.smaps, start)
        assert ours(table, here.vmas.start.tolist().index(start), says) == says


def test_the_regions_look_the_same_to_both_walks_and_not_to_both_kernels() -> None:
    old, new = map(recorded, KERNELS)
    for column in ("addr", "size", "state", "flags", "mapcount"):
        one, other = (getattr(of.pages, column)[in_regions(of)] for of in (old, new))
        np.testing.assert_array_equal(one, other, column)
    differ = set()
    for name, start in old.regions.items():
        one, other = vma_at(old.smaps, start), vma_at(new.smaps, start)
        if one.flags != other.flags:
            differ.add((name, "VmFlags"))
        differ |= {(name, field) for field, value in one.fields.items()
                   if value != other.fields[field]}
    lost = {(name, field) for name in ("lost", "lost_locked", "lost_inherited", "lost_memfd")
            for field in ("Shared_Dirty", "Private_Dirty")}
    assert differ == {*lost, (ON_FAULT, "VmFlags")}


def in_regions(of: Recording) -> np.ndarray:
    """Return a mask of the pages that lie in a region."""
    starts = np.array([*of.regions.values()], np.uint64)
    mask: np.ndarray = np.isin(of.vmas.start, starts)[of.pages.vma]
    return mask
