"""One address through the real tables, against pagemap, the targets' facts, and memory itself."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

import numpy as np
import pytest

from pagewalk.model.columns import State
from pagewalk.sources import close, open_process
from pagewalk.sources.kernel import KernelSource
from pagewalk.translate.translate import translate
from pagewalk.translate.translation import Translation
from tests.kernel_says import PAGE, PFN, PRESENT, SWAP, read_maps, read_pagemap, read_smaps, vma_at
from tests.live.bracket import look_again, looking_again, working_sources
from tests.live.command import Ran, one_sentence, pagewalk
from tests.machine import IN_GUEST, fewer, prepared
from tests.targets import TARGETS, Running, start

pytestmark = pytest.mark.live

TABLE_SOURCES = [name for name in working_sources() if name != "procfs"]
# A target's name for each of our states. A hole is empty with and without a table.
FACTS = {State.NOT_MAPPED: "empty"}
KINDS = ("plain", "zero_reads", "thp", "huge_zero", "hugetlb_private", "guard", "guard_file",
         "prot_none", "swap_private", "uffd_wp", "uffd_poison", "memfd", "file_private",
         "perf_ring", "packet_ring", "secret", "fork_cow")
SHORT = ("thp", "prot_none")


@contextmanager
def opened(pid: int, source: str) -> Iterator[KernelSource]:
    """Open a process as the command does."""
    found = open_process(pid, source)
    assert isinstance(found, KernelSource)
    try:
        yield found
    finally:
        close(found)


def region(running: Running, name: str | None = None) -> tuple[int, int]:
    """Return [start, end) of a region of the target, the first one if not named."""
    facts = running.facts[name] if name else next(iter(running.facts.values()))
    return facts["start"], facts["end"]


def memory_at(source: KernelSource, phys: int, size: int) -> bytes:
    """Read physical memory through the kernel's direct map."""
    return source.running.kernel.memory.read(source.running.direct_map.base + phys, size)


@pytest.mark.parametrize("source", TABLE_SOURCES)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.vmshort] if name in SHORT else []) for name in KINDS],
)
def test_every_page_of_a_region_is_what_the_target_and_pagemap_say(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        for facts in running.facts.values():
            if "start" not in facts:
                continue
            begin, end = facts["start"], facts["end"]
            pid = facts.get("pid", running.pid)
            hidden = "pf" in flags_at(pid, begin)
            # every state of these targets fills a multiple of 4 pages, or of 64 if they are huge
            # pages: one page of each is checked
            count = (end - begin) // PAGE
            step = 64 if count > 512 else 4 if count >= 32 else 1
            seen: Counter[str] = Counter()
            with opened(pid, source) as reader:
                for page in range(0, count, step):
                    addr = begin + page * PAGE + page % PAGE
                    found = look_again(partial(translated, reader, pid, addr, hidden))
                    assert found.state is not None
                    seen[FACTS.get(found.state, found.state.label)] += step
            wanted = {key: facts[key] for key in facts if key in {s.label for s in State}}
            if name == "perf_ring" and not hidden:  # up to 6.12 it is ordinary pages
                wanted["file"] = wanted.pop("special")
            if name == "file_private" and IN_GUEST:  # whose files are in a tmpfs under an overlay
                wanted["shmem"] = wanted.pop("file")
            assert dict(seen) == wanted


def translated(reader: KernelSource, pid: int, addr: int, hidden: bool) -> Translation:
    """Translate one address, and check that pagemap says the same."""
    found = translate(reader, hex(addr))
    assert found.state is not None and found.stable
    if hidden:
        assert found.pagemap.agrees is None
    else:
        assert same(found, word_at(pid, addr)), found
    return found


def word_at(pid: int, addr: int) -> int:
    """Return the pagemap word of the page at ``addr``."""
    page = addr & -PAGE
    return int(read_pagemap(pid, page, page + PAGE)[0])


def flags_at(pid: int, addr: int) -> tuple[str, ...]:
    """Return VmFlags of the VMA at ``addr``, by smaps."""
    return vma_at(read_smaps(pid), addr).flags


def same(found: Translation, word: int) -> bool:
    """Return whether a translation and a pagemap word (pagemap.rst) say the same."""
    if found.pagemap.agrees is not True:
        return False
    if word & PRESENT:
        return found.trace.phys == (word & PFN) * PAGE + found.trace.addr % PAGE
    if word & SWAP:
        says = dict(found.trace.last.says)
        return word & PFN == int(says["type"]) | int(says["offset"]) << 5
    return found.trace.none


@pytest.mark.parametrize("source", TABLE_SOURCES)
def test_the_physical_address_holds_the_same_bytes(source: str) -> None:
    # the strongest check: memory read at both addresses, by /proc/PID/mem and the direct map
    with start("sleep", stopped=True) as running, opened(running.pid, source) as reader:
        compared = 0
        with open(f"/proc/{running.pid}/mem", "rb", buffering=0) as memory:
            for vma in read_maps(running.pid):
                if "r" not in vma.perms or vma.name in ("[vsyscall]", "[vvar]", "[vvar_vclock]"):
                    continue
                compared += look_again(partial(same_bytes, reader, memory, vma.start + 0x40))
        assert compared > 10


def same_bytes(reader: KernelSource, memory: BinaryIO, addr: int) -> bool:
    """Check that both addresses have the same contents; False if there is no physical address."""
    phys = translate(reader, hex(addr)).trace.phys
    if phys is None:
        return False
    memory.seek(addr)
    assert memory_at(reader, phys, 64) == memory.read(64)
    return True


def test_a_leafs_size_follows_from_its_level() -> None:
    for name, level, size in (("plain", "PTE", PAGE), ("thp", "PMD", 2 << 20),
                              ("hugetlb_pud", "PUD", 1 << 30)):
        with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
            addr = region(running)[0] + 0x1123
            ran = look_again(partial(located, running.pid, addr))
        assert ran.json["levels"][-1]["level"] == level
        assert (ran.json["size"], ran.json["offset"]) == (size, addr % size)


def located(pid: int, addr: int) -> Ran:
    """Run vtop, and check the physical address."""
    ran = pagewalk("vtop", pid, hex(addr), "-f", "json")
    assert ran.code == 0, ran.err
    assert int(ran.json["phys"], 16) == (word_at(pid, addr) & PFN) * PAGE + addr % PAGE
    return ran


def test_a_hole_ends_where_pagemap_shows_something() -> None:
    with start("plain", stopped=True) as running, opened(running.pid, TABLE_SOURCES[0]) as reader:
        for begin, end in {region(running, name) for name in running.facts}:
            vma = vma_at(read_maps(running.pid), begin)
            words = read_pagemap(running.pid, vma.start, vma.end)
            empty = np.flatnonzero(words & np.uint64(PRESENT | SWAP) == 0)
            for page in empty[:: max(1, len(empty) // 20)].tolist():
                found = translate(reader, hex(vma.start + page * PAGE))
                assert found.hole is not None
                low, high = ((edge - vma.start) // PAGE for edge in found.hole)
                assert low <= page < high
                assert set(range(low, high)) <= set(empty.tolist())
                assert low == 0 or low - 1 not in empty
                assert high == len(words) or high not in empty
            assert begin < end


def test_a_reservation_has_holes_at_every_level() -> None:
    # 16 TiB with 1000 pages: most of it has no PTE table, much has no PMD or even PUD table
    with start("reservation", stopped=True) as running:
        begin, end = region(running)
        with opened(running.pid, TABLE_SOURCES[0]) as reader:
            levels = set()
            for step in range(64):
                addr = begin + (end - begin) // 64 * step + (5 << 21) + PAGE
                found = translate(reader, hex(addr))
                levels.add(found.trace.last.level.name)
                assert found.hole is not None
                low, high = found.hole
                assert low <= addr < high and not word_at(running.pid, addr) & (PRESENT | SWAP)
                if high < end:
                    assert word_at(running.pid, high) & PRESENT
                if low > begin:
                    assert word_at(running.pid, low - PAGE) & PRESENT
    assert {"PMD", "PUD"} <= levels


@looking_again
def test_secret_memory_is_not_in_the_kernels_half() -> None:
    # memfd_secret removes its pages from the direct map: vtop of their address there shows it
    with start("secret", stopped=True) as running, opened(running.pid, "ebpf") as reader:
        found = translate(reader, hex(region(running)[0]))
        assert found.trace.phys is not None
        there = reader.running.direct_map.base + found.trace.phys
        kernel = translate(reader, hex(there))
        assert kernel.trace.last.kind == "not present"
        assert kernel.trace.phys is None
        # that of an ordinary page leads to the same page
        plain = translate(reader, "stack-8")
        assert plain.trace.phys is not None
        back = translate(reader, hex(reader.running.direct_map.base + plain.trace.phys))
        assert back.trace.phys == plain.trace.phys


def test_a_name_means_what_maps_says() -> None:
    with start("sleep", stopped=True) as running:
        maps = read_maps(running.pid)
        libc = min(vma.start for vma in maps if vma.name.endswith("/libc.so.6"))
        stack = next(vma for vma in maps if vma.name == "[stack]")
        for asked, addr in (("libc.so.6+0x2000", libc + 0x2000), ("stack-8", stack.end - 8),
                            ("stack", stack.start), ("[stack]+8", stack.start + 8)):
            assert pagewalk("vtop", running.pid, asked, "-f", "json").json["addr"] == hex(addr)


@looking_again
def test_the_text_shows_the_page_and_its_translation() -> None:
    with start("plain", stopped=True) as running:
        begin = region(running)[0]
        ran = pagewalk("vtop", running.pid, hex(begin + 0x10), env={**os.environ, "COLUMNS": "80"})
        word = word_at(running.pid, begin)
    assert ran.code == 0, ran.err
    assert f"{begin + 0x10:#x} -> physical {(word & PFN) * PAGE + 0x10:#x}\n" in ran.out
    rows = re.findall(r"^(PGD|P4D|PUD|PMD|PTE) +(\d+)  +0x\w+  +0x\w+  0x\w{16}  r", ran.out,
                      re.MULTILINE)
    shifts = {"PGD": 39 if len(rows) == 4 else 48, "P4D": 39, "PUD": 30, "PMD": 21, "PTE": 12}
    assert [int(index) for _, index in rows] == [begin >> shifts[n] & 511 for n, _ in rows]
    assert max(len(line) for line in ran.out.splitlines()) <= 80


def test_an_address_outside_every_vma_is_walked_too() -> None:
    with start("sleep", stopped=True) as running:
        ran = pagewalk("vtop", running.pid, "0x10", "-f", "json")
    assert ran.code == 0
    assert (ran.json["vma"], ran.json["state"], ran.json["phys"]) == (None, None, None)
    assert "It is not in any VMA" in ran.json["remarks"][0]
    assert ran.json["levels"][-1]["kind"] == "none"


def test_the_gate_vma() -> None:
    with start("sleep", stopped=True) as running:
        if not any(vma.name == "[vsyscall]" for vma in read_maps(running.pid)):
            return  # vsyscall=none: there is no gate VMA
        ran = pagewalk("vtop", running.pid, "vsyscall", "-f", "json")
    assert ran.code == 0
    assert ran.json["addr"] == "0xffffffffff600000"
    assert ran.json["pagemap"]["agrees"] is None
    assert "gate VMA" in ran.json["remarks"][0]


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ("0x800000000000000", 2, "is not canonical"),
        ("nothing", 2, "neither a hexadecimal address nor the name of a VMA"),
        ("ffffffffffffffffff", 2, "exceeds 64 bits"),
    ],
)
def test_an_invalid_address_is_refused(asked: str, code: int, says: str) -> None:
    with start("sleep", stopped=True) as running:
        ran = pagewalk("vtop", running.pid, asked)
    assert ran.code == code
    assert says in one_sentence(ran)


@looking_again
def test_procfs_says_which_source_is_needed_and_what_it_knows() -> None:
    with start("plain", stopped=True) as running:
        begin = region(running)[0]
        ran = pagewalk("vtop", running.pid, hex(begin), "--source", "procfs")
        frame = word_at(running.pid, begin) & PFN
    assert ran.code == 1
    said = one_sentence(ran)
    assert f"pagemap says present, frame {frame:#x};" in said
    assert "--source ebpf" in said


def test_a_target_that_maps_and_unmaps_does_not_break_it() -> None:
    with start("churn") as running, opened(running.pid, TABLE_SOURCES[0]) as reader:
        for step in range(fewer(200)):
            # the mappings of the thread are among the anonymous ones
            vmas = [vma for vma in read_maps(running.pid) if not vma.name]
            found = translate(reader, hex(vmas[step % len(vmas)].start))
            # An unstable answer is allowed here; a stable one that differs from pagemap is not.
            assert found.pagemap.agrees is not False, found
            assert found.trace.steps[0].table == reader.space.root
