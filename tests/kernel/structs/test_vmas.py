"""Tasks, mm and VMAs read from kernel structs, against /proc."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import find_task
from pagewalk.kernel.structs.vmas import RawVmas, read_each, read_files, read_vmas
from pagewalk.model.errors import ProcessGone, SourceUnavailable
from pagewalk.model.ranges import overlapping
from tests import kernel_says
from tests.live.bracket import looking_again
from tests.targets import start

pytestmark = pytest.mark.live

VM_READ, VM_WRITE, VM_EXEC, VM_MAYSHARE = 1, 2, 4, 0x80


def raw_vmas(kernel: Kernel, pid: int) -> RawVmas:
    mm = find_task(kernel, pid).mm
    assert mm is not None
    return read_vmas(kernel, mm)


Row = tuple[int, int, str, int, tuple[int, int], int]


def as_maps(kernel: Kernel, vmas: RawVmas) -> list[Row]:
    # The columns of /proc/PID/maps; show_map_vma() prints pgoff 0 without a file.
    rows, files = [], read_files(kernel, vmas.file)
    for row in range(len(vmas.start)):
        flags, has_file = int(vmas.flags[row]), bool(vmas.file[row])
        letters = (("r", VM_READ), ("w", VM_WRITE), ("x", VM_EXEC))
        perms = "".join(letter if flags & bit else "-" for letter, bit in letters)
        rows.append(
            (
                int(vmas.start[row]),
                int(vmas.end[row]),
                perms + ("s" if flags & VM_MAYSHARE else "p"),
                int(vmas.offset[row]) if has_file else 0,
                (int(files.major[row]), int(files.minor[row])),
                int(files.inode[row]),
            )
        )
    return rows


def maps(pid: int) -> list[Row]:
    return [
        (vma.start, vma.end, vma.perms, vma.offset, vma.device, vma.inode)
        for vma in kernel_says.read_maps(pid)
        if vma.name != "[vsyscall]"  # the gate VMA is not in the tree
    ]


@pytest.mark.parametrize("name", ["plain", "file_private", "names", "threads", "vmas", "java"])
def test_the_vma_list_is_that_of_maps(kernel: Kernel, prepare: object, name: str) -> None:
    if name == "java":
        prepare("java")  # type: ignore[operator]
    with start(name, stopped=True) as running:
        found = as_maps(kernel, raw_vmas(kernel, running.pid))
        assert found == maps(running.pid)
        assert len(found) > 5


@looking_again
def test_every_process_of_this_machine(kernel: Kernel) -> None:
    # Others may map and exit between the reads: a process counts if maps before and after agree,
    # and then it must match. One that mapped and unmapped in between does not.
    compared = 0
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            before = maps(pid)
            task = find_task(kernel, pid)
            vmas = as_maps(kernel, read_vmas(kernel, task.mm)) if task.mm else []
            after = maps(pid)
        except (OSError, ProcessGone, SourceUnavailable):
            continue  # gone, or its VMAs kept changing
        if before == after:
            assert vmas == before, pid
            compared += 1
    assert compared > 3


def test_vm_flags_are_those_of_smaps(kernel: Kernel) -> None:
    # Bits and letters as in show_smap_vma_flags(), fs/proc/task_mmu.c.
    codes = {"rd": 0, "wr": 1, "ex": 2, "sh": 3, "mr": 4, "mw": 5, "me": 6, "ms": 7, "gd": 8}
    codes |= {"lo": 13, "nr": 21}
    with start("locked", stopped=True) as running:
        vmas = raw_vmas(kernel, running.pid)
        says = [
            (vma.start, set(vma.flags))
            for vma in kernel_says.read_smaps(running.pid)
            if vma.name != "[vsyscall]"
        ]
        for (address, flags), begin, raw in zip(says, vmas.start, vmas.flags, strict=True):
            assert address == begin
            assert flags & set(codes) == {c for c, bit in codes.items() if int(raw) >> bit & 1}
        assert any("lo" in flags for _, flags in says)


def test_vmas_that_keep_changing_are_read_consistently(kernel: Kernel) -> None:
    with start("churn") as running:
        mm = find_task(kernel, running.pid).mm
        assert mm is not None
        for _ in range(200):
            vmas = read_vmas(kernel, mm)
            assert (vmas.start < vmas.end).all()
            assert (vmas.end[:-1] <= vmas.start[1:]).all()
            assert (vmas.start % np.uint64(4096) == 0).all()


def test_vmas_one_by_one_are_those_of_one_moment(kernel: Kernel) -> None:
    with start("vmas", 5000, stopped=True) as running:
        mm = find_task(kernel, running.pid).mm
        assert mm is not None
        whole, (each, lost) = read_vmas(kernel, mm), read_each(kernel, mm)
    assert len(whole.start) > 5000
    assert len(lost) == 0
    for name, column in whole._asdict().items():
        assert getattr(each, name).tolist() == column.tolist(), name


@pytest.mark.parametrize("arguments", [(4, 0, 10), (3, 0, 20000)])
def test_vmas_that_keep_changing_are_read_one_by_one(
    kernel: Kernel, arguments: tuple[int, ...]
) -> None:
    # All those that stay are reported, whatever happens next to them.
    with start("storm", *arguments) as running:
        mm = find_task(kernel, running.pid).mm
        assert mm is not None
        stays = [(fact["start"], fact["end"]) for fact in running.facts.values()]
        for _ in range(30):
            vmas, lost = read_each(kernel, mm)
            assert (vmas.start < vmas.end).all()
            assert (vmas.end[:-1] <= vmas.start[1:]).all()
            assert set(stays) <= set(zip(vmas.start.tolist(), vmas.end.tolist(), strict=True))
            assert (lost[:, 0] < lost[:, 1]).all()
            assert not overlapping(np.stack([vmas.start, vmas.end], axis=1), lost).any()
