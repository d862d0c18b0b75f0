"""What could be reclaimed while a process runs, against smaps, syscall and what the program did."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest

from tests import kernel_says
from tests.live.bracket import look_again
from tests.live.command import pagewalk
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

PAGE, HUGE = 4096, 512 * 4096


def returnable(pid: int, *words: str) -> dict[str, Any]:
    ran = pagewalk("heap", pid, "--format", "json", *words)
    found: dict[str, Any] = json.loads(ran.out)["returnable"]
    return found


def clean_file(pid: int) -> int:
    """Return the bytes of files that are clean and not locked, as smaps says."""
    return sum(
        vma.fields["Shared_Clean"] + vma.fields["Private_Clean"]
        for vma in kernel_says.read_smaps(pid)
        if vma.name.startswith("/") and not vma.name.startswith(("/memfd:", "/dev/"))
        and "lo" not in vma.flags
    ) << 10


def locked_by_others(pid: int) -> int:
    """Return the clean bytes of files that ``pid`` maps and has not locked, but somebody has."""
    total = 0
    for vma in kernel_says.read_maps(pid):
        if vma.name.startswith("/"):
            entries = kernel_says.read_pagemap(pid, vma.start, vma.end)
            present = entries[entries >> np.uint64(63) == 1]
            flags = kernel_says.read_folio_flags(present & np.uint64((1 << 55) - 1))
            # KPF_UNEVICTABLE, KPF_MLOCKED; KPF_ANON, KPF_DIRTY
            locked = flags & np.uint64(1 << 18 | 1 << 33) != 0
            total += PAGE * int((locked & (flags & np.uint64(1 << 12 | 1 << 4) == 0)).sum())
    return total


@pytest.mark.parametrize("name", ["plain", "file_private", "file_shared", "locked", "lazyfree"])
def test_what_the_kernel_drops_is_what_smaps_calls_clean(name: str) -> None:
    def same() -> None:
        before = clean_file(running.pid), locked_by_others(running.pid)
        found = returnable(running.pid)
        smaps = kernel_says.read_smaps(running.pid)
        assert (clean_file(running.pid), locked_by_others(running.pid)) == before
        assert found["clean_file"] == before[0] - before[1]
        assert found["lazyfree"] == sum(vma.fields["LazyFree"] for vma in smaps) << 10
        assert found["rss"] == sum(vma.fields["Rss"] for vma in smaps) << 10

    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        look_again(same)


def test_files_that_another_process_has_locked_are_not_dropped() -> None:
    def same() -> None:
        before = clean_file(running.pid), locked_by_others(running.pid)
        found = returnable(running.pid)["clean_file"]
        assert (clean_file(running.pid), locked_by_others(running.pid)) == before
        assert before[1] > 0
        assert found == before[0] - before[1]

    # The other one maps the same libc.
    with start("plain", stopped=True) as running, start("locked_all"):
        look_again(same)


def test_huge_pages_that_are_hardly_used_are_counted_page_by_page() -> None:
    with prepared("thp"), start("thp", stopped=True) as running:
        found = returnable(running.pid)
    # The program wrote one page of one huge page.
    assert found["huge"] == found["huge_looked_at"] == HUGE
    assert found["huge_zeros"] == HUGE - PAGE
    assert found["in_all"] >= HUGE - PAGE + found["clean_file"]


def below(pid: int) -> int:
    """Return the bytes in RAM of stacks below the stack pointers of all threads of ``pid``."""
    total = 0
    vmas = kernel_says.read_smaps(pid)
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/syscall") as file:
            pointer = int(file.read().split()[-2], 16)
        vma = kernel_says.vma_at(vmas, pointer)
        # The ABI keeps 128 bytes below the pointer for the function itself.
        end = (pointer - 128) // PAGE * PAGE
        total += kernel_says.count_states(pid, vma.start, end).get("anon", 0) * PAGE
    return total


def test_stacks_are_idle_below_where_their_threads_wait() -> None:
    with start("deep", stopped=True) as running:
        found = returnable(running.pid)
        stacks = running.facts["stacks"]
        assert found["waiting"] == stacks["threads"] + 1
        assert found["idle_stacks"] == below(running.pid)
        # What is between the deepest frame and where a thread waits are a few frames of libc.
        assert found["idle_stacks"] >= stacks["threads"] * (stacks["deep"] - 4) * PAGE


def test_a_source_that_reads_no_page_tables_cannot_tell_what_is_clean() -> None:
    with start("lazyfree", stopped=True) as running:
        found = returnable(running.pid, "--source", "procfs")
        assert found["clean_file"] is None and found["lazyfree"] is None
        said = pagewalk("heap", running.pid, "--source", "procfs").out
        assert "In all at least" in said and "released with MADV_FREE" not in said
