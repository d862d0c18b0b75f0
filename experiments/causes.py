"""The causes that account for one to three pages, each shown at work: SHOWN by name."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pagewalk
from experiments.programs import program
from experiments.steps import PAGE, report, said, stepper

# Kernels of vmtest with other counters than this one's.
OTHER_KERNELS = ("6.1", "6.12")
PAGES = 3
PAUSE = 0.001


@dataclass(frozen=True, slots=True)
class Shown:
    """A cause at work: rows, one per step, of pages by name, and a sentence on what they show."""

    cause: str
    rows: list[dict[str, Any]]
    shows: str


def steps_program() -> Path:
    # Static, so that it maps nothing but what it reports, here and on other kernels.
    return program("steps", "-static")


def pages(pid: int) -> dict[str, Any]:
    """Return a process's pages as we count them and as smaps does."""
    totals = pagewalk.table(pid).totals
    ours = {name: (totals[name] or 0) // PAGE for name in ("present", "zero", "special", "rss")}
    return {**ours, "smaps": said(pid)["smaps"]}


def zero_page() -> Shown:
    """Read pages that were never written: each maps the shared zero page."""
    return stepped("zero_page", "r", "each page read but never written adds one to the pages that"
                   " a walk finds present, and none to any RSS")


def vdso() -> Shown:
    """Ask for the time: the vdso reads a page of the kernel."""
    return stepped("vdso", "c", "the first look at the clock maps a page of [vvar]: present in the"
                   " page table, hidden from pagemap and smaps, in no RSS")


def stepped(cause: str, command: str, shows: str) -> Shown:
    with stepper(steps_program()) as steps:
        rows = [{"step": 0, **pages(steps.pid)}]
        for step in range(1, PAGES + 1):
            steps.tell(command)
            rows.append({"step": step, **pages(steps.pid)})
    return Shown(cause, rows, shows)


def concurrent_change() -> Shown:
    """Read status, then smaps a little later, of a process that writes a page a millisecond."""
    rows = []
    with stepper(steps_program()) as steps:
        steps.tell("w")  # once it answers, it has started
        steps.tell("d")
        for reading in range(10):
            first = said(steps.pid)
            time.sleep(PAUSE)
            rows.append({"reading": reading, "status": first["status"],
                         "smaps later": said(steps.pid)["smaps"]})
    return Shown("concurrent_change", rows, "a process that runs is another one a few milliseconds"
                 " later: two readings differ by what it touched between them")


def counter_batching() -> Shown:
    """Write page after page, here and on kernels whose counters work differently."""
    rows = [report(steps_program(), hellos())]
    rows += [in_kernel(name) for name in OTHER_KERNELS]
    return Shown("counter_batching", rows, "up to 6.1 a thread keeps its last faults to itself, so"
                 " status, statm and stat lag behind the page tables; newer kernels add up what"
                 " each CPU keeps to itself, and only stat lags")


def hellos() -> list[Path]:
    return [program("hello"), program("hello", "-static")]


def in_kernel(name: str) -> dict[str, Any]:
    """Run experiments.steps on another kernel under QEMU, and return its output."""
    from vmtest.kernels import KERNELS
    from vmtest.run import run_in_vm

    command = [sys.executable, "-m", "experiments.steps", *map(str, [steps_program(), *hellos()])]
    result = run_in_vm(KERNELS[name], command)
    if result.returncode:
        raise RuntimeError(f"experiments.steps in {name}: {result.stderr.strip()}")
    row: dict[str, Any] = json.loads(result.stdout)
    return row


SHOWN: dict[str, Callable[[], Shown]] = {
    "zero_page": zero_page,
    "vdso": vdso,
    "concurrent_change": concurrent_change,
    "counter_batching": counter_batching,
}
