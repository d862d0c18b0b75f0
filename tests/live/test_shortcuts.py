"""The programs that save copying change no result, however small the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import pagewalk
from pagewalk.account.smaps import DETAILS, by_field
from pagewalk.kernel import frames
from pagewalk.kernel.frames import StructPages
from pagewalk.kernel.programs import loader
from pagewalk.kernel.programs.condense_pages import Condenser
from pagewalk.model.columns import I64, U64, Bool
from pagewalk.proc.kernel import release
from pagewalk.sources import readers
from pagewalk.sources.kernel import KernelSource
from tests.kernel.loops import needs_loops
from tests.live.bracket import compare, look_again, working_sources
from tests.live.test_exact import OVERCOUNTED, check_closes, wrong_but
from tests.machine import prepared
from tests.targets import TARGETS, start, stop

pytestmark = [
    pytest.mark.live,
    needs_loops,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="no BPF program may read memory"),
]


@pytest.fixture(autouse=True)
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Use the shortcuts at once, and return a list of how many tables each call condensed."""
    tables: list[int] = []
    runs = StructPages.runs

    def spied(self: StructPages, condenser: Condenser, addresses: U64) -> object:
        tables.append(len(addresses))
        return runs(self, condenser, addresses)

    monkeypatch.setattr(loader, "COUNTER_PAYS", 0)
    monkeypatch.setattr(loader, "CONDENSER_PAYS", 0)
    monkeypatch.setattr(StructPages, "runs", spied)
    return tables


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "zombie"])
def test_equals_smaps(name: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        for pid in running.pids:
            found = compare(pid, "ebpf")
            assert wrong_but(found.wrong, OVERCOUNTED.get(name)) == []
            check_closes(found.table)


@pytest.fixture
def page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every page, as if each VMA had been shared by a fork."""
    monkeypatch.setattr(KernelSource, "unshared", lambda _, vmas: np.zeros(len(vmas), bool))


@pytest.mark.vmshort
@pytest.mark.usefixtures("page_by_page")
def test_whole_tables_are_condensed_and_equal_what_smaps_says(used: list[int]) -> None:
    with start("dense", 64, stopped=True) as running:
        found = compare(running.pid, "ebpf")
    assert found.wrong == []
    assert max(used) >= 30  # 64 MiB are 32 tables, except at the edges


@pytest.mark.skipif(release() < (6, 13), reason="mm_lock_seq cannot be relied upon before 6.13")
def test_pages_that_no_other_process_maps_are_only_counted(used: list[int]) -> None:
    with start("dense", 64, stopped=True) as running:
        found = compare(running.pid, "ebpf")
    assert found.wrong == []
    assert used == []
    assert (found.table.totals["uss"] or 0) > 64 << 20


def columns_of(pid: int, *, one_by_one: bool) -> dict[str, I64 | None]:
    if not one_by_one:
        return pagewalk.table(pid, source="ebpf").columns
    table = by_field(pagewalk.walk(pid, source="ebpf"))
    return {name: table.columns[name] for name in table.columns if name not in SMAPS_ONLY}


SMAPS_ONLY = {column.name for column in DETAILS}
MOVING = ("zombie", "churn", "storm", "mapper")


@pytest.mark.parametrize("name", [n for n in TARGETS if n not in MOVING])
def test_sums_are_those_of_the_pages(name: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        for pid in running.pids:
            look_again(lambda pid=pid: check_sums(pid))  # type: ignore[misc]


def check_sums(pid: int) -> None:
    quick = columns_of(pid, one_by_one=False)
    slow = columns_of(pid, one_by_one=True)
    assert quick.keys() == slow.keys()
    for column, amounts in slow.items():
        np.testing.assert_array_equal(quick[column], amounts, column)


@pytest.mark.usefixtures("page_by_page")
def test_pages_are_read_one_by_one_only_on_demand(used: list[int]) -> None:
    with start("dense", 64, stopped=True) as running:
        columns_of(running.pid, one_by_one=False)
        assert used
        used.clear()
        columns_of(running.pid, one_by_one=True)
        assert not used


@pytest.mark.usefixtures("page_by_page")
def test_a_program_that_disagrees_with_the_reader_is_not_used(
    used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the mapcount were elsewhere on this kernel.
    of_tables = Condenser.of_tables

    def shifted(self: Condenser, addresses: U64) -> tuple[Bool, U64]:
        plain, words = of_tables(self, addresses)
        return plain, words + np.uint64(1 << 32) * (words != 0)

    monkeypatch.setattr(Condenser, "of_tables", shifted)
    with start("dense", 64, stopped=True) as running:
        source = pagewalk.open_process(running.pid, "ebpf")
        frames = source.space.frames
        assert isinstance(frames, StructPages)
        monkeypatch.setattr(frames, "_tables_proved", False)
        table = pagewalk.table(source)
        assert used and not frames._tables_proved
        pagewalk.close(source)
        assert (table.totals["uss"] or 0) > 64 << 20
        found = compare(running.pid, "ebpf")
    assert found.wrong == []


# Four huge pages that are mapped by small entries, minus one page each, and a child that has
# written to every other page of the first two and then unmapped the third.
SPLIT = """
import ctypes, mmap, os, signal
huge = 2 << 20
map = mmap.mmap(-1, 5 * huge, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
first = -ctypes.addressof(ctypes.c_char.from_buffer(map)) % huge
map.madvise(mmap.MADV_HUGEPAGE)
map[first : first + 4 * huge] = bytes(4 * huge)
for at in range(first, first + 4 * huge, huge):
    map.madvise(mmap.MADV_DONTNEED, at, 4096)
child = os.fork()
if not child:
    for at in range(first, first + 2 * huge, 8192):
        map[at] = 1
    map.madvise(mmap.MADV_DONTNEED, first + 2 * huge, huge)
    print(os.getppid(), os.getpid(), flush=True)
signal.pause()
"""


def test_pages_of_large_folios_are_condensed(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[int] = []
    runs = StructPages.runs

    def counted(self: StructPages, condenser: Condenser, addresses: U64) -> object:
        told = runs(self, condenser, addresses)
        pages.extend(told[1].tolist())
        return told

    monkeypatch.setattr(StructPages, "runs", counted)
    command = [sys.executable, "-c", SPLIT]
    with prepared("thp"), subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        family = [process.pid]
        try:
            assert process.stdout is not None
            family = [int(pid) for pid in process.stdout.readline().split()]
            for pid in family:
                stop(pid)
                found = compare(pid, "ebpf")
                assert found.wrong == []
                # the tables of the four, for each walk; the child has completed the first two and
                # emptied the third
                each = 4 if pid == process.pid else 1
                assert pages.count(511) >= each and pages.count(511) % each == 0
                pages.clear()
        finally:
            for pid in family:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("page_by_page")
def test_tables_that_need_a_closer_look_get_it(
    used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if every second table mapped a page of a large folio.
    runs = StructPages.runs

    def doubtful(self: StructPages, condenser: Condenser, addresses: U64) -> object:
        told, pages = runs(self, condenser, addresses)
        pages[::2] = -1
        keep = pages[told.table] >= 0
        columns = (told.table, told.pages, told.flags, told.mapcount)
        return frames.Runs(*(column[keep] for column in columns)), pages

    monkeypatch.setattr(StructPages, "runs", doubtful)
    with start("dense", 64, stopped=True) as running:
        found = compare(running.pid, "ebpf")
    assert found.wrong == []


@pytest.mark.usefixtures("page_by_page")
def test_without_the_programs_walks_work_as_before(
    used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start("dense", 64, stopped=True) as running:
        source = pagewalk.open_process(running.pid, "ebpf")
        assert isinstance(source, KernelSource)
        monkeypatch.setattr(source.running.shortcuts, "loaded_counter", None)
        monkeypatch.setattr(source.running.shortcuts, "loaded_condenser", None)
        assert readers.running("ebpf") is source.running  # which all walks in this process use
        found = compare(running.pid, "ebpf")
        pagewalk.close(source)
    assert found.wrong == []
    assert used == []
    check_closes(found.table)


def test_a_forked_child_loads_its_own_programs() -> None:
    before = readers.running("ebpf")
    assert readers.running("ebpf") is before
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if readers.running("ebpf") is not before else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_a_program_is_loaded_when_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    # 31 tables per walk: it pays from the second on
    monkeypatch.setattr(loader, "COUNTER_PAYS", 48 * 512)
    with start("dense", 64, stopped=True) as running:
        source = pagewalk.open_process(running.pid, "ebpf")
        assert isinstance(source, KernelSource)
        held = source.running.shortcuts
        assert held is not None
        monkeypatch.setattr(held, "_counted", 0)
        held.__dict__.pop("loaded_counter", None)
        present, loaded = [], []
        for _ in range(2):
            present.append(pagewalk.table(source, frames=False).columns["present"])
            loaded.append("loaded_counter" in held.__dict__)
        pagewalk.close(source)
    assert loaded == [False, True]
    np.testing.assert_array_equal(*present)
