"""The rule of THPeligible, one case per line of thp_vma_allowable_orders() (mm/huge_memory.c)."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.kernel.structs.mappings import Mappings
from pagewalk.kernel.structs.vmas import RawVmas
from pagewalk.kernel.thp_eligible import UNKNOWN, eligible
from pagewalk.proc.hugepages import Policy
from tests.by_hand import FACTS

MIB, PAGE = 1 << 20, 4096
START = 0x7F00_0000_0000
HUGE, NO_HUGE, DONTEXPAND, PFNMAP, GROWS = 0x20000000, 0x40000000, 0x40000, 0x400, 0x100
ALWAYS = Policy("always", "never", {"inherit": 1 << 9}, {"inherit": 1 << 9})
NEVER = ALWAYS._replace(anon="never")
ADVISED = ALWAYS._replace(anon="madvise")
NEW, OLD = (6, 12), (6, 1)


def mapping(
    size: int = 4 * MIB, *, start: int = START, offset: int = 0, flags: int = 0, ops: int = 0,
    file: int = 0, mount: int = 0, mm_flags: int = 0, **what: bool,
) -> Mappings:
    """Return one VMA: anonymous memory, unless it has operations."""

    def one(value: int) -> np.ndarray:
        return np.array([value], np.uint64)

    vma = RawVmas(one(0), one(start), one(start + size), one(flags), one(offset), one(file),
                  one(ops), one(0), one(0))
    bools = ("huge_fault", "sized", "dax", "shmem", "anon_shmem", "regular")
    told = {name: np.array([what.get(name, False)]) for name in bools}
    return Mappings(vma=vma, **told, block=one(0), mount=one(mount), mm_flags=mm_flags)


def ask(
    of: Mappings, policy: Policy | None = ALWAYS, release: tuple[int, int] = NEW,
    file_thp: bool | None = False,
) -> int:
    built = {True: frozenset({"CONFIG_READ_ONLY_THP_FOR_FS"}), False: frozenset[str](), None: None}
    facts = FACTS._replace(release=release, read_config=lambda: built[file_thp])
    (found,) = eligible(of, policy, facts).tolist()
    return int(found)


@pytest.mark.parametrize("release", [OLD, NEW, (6, 18)])
@pytest.mark.parametrize(
    ("of", "policy", "expected"),
    [
        (mapping(), ALWAYS, 1),
        (mapping(), NEVER, 0),
        (mapping(), None, 0),  # built without huge pages
        (mapping(), ADVISED, 0),
        (mapping(flags=HUGE), ADVISED, 1),
        (mapping(flags=NO_HUGE), ALWAYS, 0),
        (mapping(mm_flags=1 << 24), ALWAYS, 0),  # prctl(PR_SET_THP_DISABLE)
        (mapping(2 * MIB), ALWAYS, 1),
        (mapping(2 * MIB, start=START + PAGE), ALWAYS, 0),  # holds no aligned huge page
        (mapping(4 * MIB, start=START + PAGE), ALWAYS, 1),
        (mapping(2 * MIB - PAGE), ALWAYS, 0),
        (mapping(flags=GROWS | 0x18000), ALWAYS, 0),  # a stack in the middle of exec
        (mapping(flags=GROWS), ALWAYS, 1),
        (mapping(ops=1, file=1, regular=True), ALWAYS, 0),  # a file without huge_fault
        (mapping(ops=1, file=1, regular=True, dax=True, huge_fault=True), ALWAYS, 0),
        (mapping(ops=1), ALWAYS, 0),  # [vdso]
        (mapping(ops=1, file=1, shmem=True), ALWAYS, 0),
        (mapping(ops=1, file=1, shmem=True, mount=1), ALWAYS, 1),  # mounted with huge=always
        (mapping(ops=1, file=1, shmem=True, mount=3), ALWAYS, 0),  # huge=advise
        (mapping(ops=1, file=1, shmem=True, mount=3, flags=HUGE), NEVER, 1),
        (mapping(ops=1, file=1, shmem=True, mount=2), ALWAYS, UNKNOWN),  # huge=within_size
        (mapping(ops=1, file=1, shmem=True, mount=1), ALWAYS._replace(shmem="deny"), 0),
        (mapping(ops=1, file=1, shmem=True), ALWAYS._replace(shmem="force"), 1),
    ],
)
def test_on_every_release(
    of: Mappings, policy: Policy | None, expected: int, release: tuple[int, int]
) -> None:
    assert ask(of, policy, release) == expected


@pytest.mark.parametrize(
    ("of", "policy", "old", "new"),
    [
        # Up to 6.7 there were no other sizes, and drivers' own huge pages did not count.
        (mapping(16 * PAGE), ALWAYS._replace(anon_orders={"always": 1 << 4}), 0, 1),
        (mapping(flags=DONTEXPAND), ALWAYS, 0, 1),
        (mapping(ops=1, file=1, huge_fault=True), ALWAYS, 0, 1),
        (mapping(ops=1, file=1, huge_fault=True), NEVER, 0, 0),
        # A file mapping whose alignment in the file differs from that in memory.
        (mapping(2 * MIB, ops=1, file=1, huge_fault=True, offset=PAGE), ALWAYS, 0, 0),
        # A driver's own memory has huge pages of 2 MiB or 1 GiB, or none.
        (mapping(16 * PAGE, ops=1, file=1, huge_fault=True), ALWAYS, 0, 1),
        (mapping(16 * PAGE, ops=1, file=1, huge_fault=True, flags=PFNMAP), ALWAYS, 0, 0),
    ],
)
def test_what_6_8_changed(of: Mappings, policy: Policy, old: int, new: int) -> None:
    assert (ask(of, policy, OLD), ask(of, policy, NEW)) == (old, new)


def test_shared_anonymous_memory_follows_the_settings_by_size() -> None:
    own = mapping(16 * PAGE, ops=1, file=1, shmem=True, anon_shmem=True)
    named = mapping(16 * PAGE, ops=1, file=1, shmem=True)
    policy = ALWAYS._replace(shmem_orders={"always": 1 << 4})
    assert (ask(own, policy), ask(named, policy)) == (1, 0)
    within = ALWAYS._replace(shmem_orders={"within_size": 1 << 4})
    assert ask(own, within) == UNKNOWN
    assert ask(own, within._replace(shmem="force")) == 0  # applies to "inherit", which none has


def test_6_17_checks_whether_the_order_fits() -> None:
    # 64 KiB on a mount that gives huge pages of 2 MiB.
    small = mapping(16 * PAGE, ops=1, file=1, shmem=True, mount=1)
    assert (ask(small, release=(6, 16)), ask(small, release=(6, 17))) == (1, 0)


def test_a_process_may_disable_them_except_where_advised() -> None:
    mine = {"mm_flags": 1 << 23}
    assert ask(mapping(**mine), release=(6, 18)) == 0  # type: ignore[arg-type]
    assert ask(mapping(flags=HUGE, **mine), release=(6, 18)) == 1  # type: ignore[arg-type]
    assert ask(mapping(**mine), release=(6, 17)) == 1  # type: ignore[arg-type]


def test_file_mappings_may_be_collapsed_on_some_kernels() -> None:
    text = mapping(ops=1, file=1, regular=True)
    assert [ask(text, file_thp=built) for built in (False, True, None)] == [0, UNKNOWN, UNKNOWN]
    assert ask(text, NEVER, file_thp=True) == 0
    assert ask(mapping(PAGE, ops=1, file=1, regular=True), file_thp=True) == 0


@pytest.mark.parametrize("release", [(5, 15), (6, 0), (6, 19), (7, 2)])
def test_for_an_unknown_kernel_nothing_is_guessed(release: tuple[int, int]) -> None:
    assert ask(mapping(), release=release) == UNKNOWN
    assert ask(mapping(), None, release) == 0
