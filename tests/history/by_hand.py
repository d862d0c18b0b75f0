"""Recordings of processes made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pagewalk.snapshot.schema import Meta
from pagewalk.snapshot.write import Labels, Writer, whole_file
from tests.snapshot.by_hand import FACTS, META, PAGE

STATES = ("anon", "file", "zero", "swapped", "special", "hugetlb", "device")


class Run(NamedTuple):
    """Pages that are alike: so many of ``unit`` bytes, from ``frame`` on."""

    frame: int | None
    pages: int = 1
    state: str = "anon"
    unit: int = PAGE
    mapcount: int | None = 1
    vma: int = 0
    start: int = 0


class Process(NamedTuple):
    """A process with two mappings, called ``names``, and its amounts by name."""

    pid: int
    name: str = "one"
    runs: tuple[Run, ...] = ()
    amounts: dict[str, int | None] = {}  # noqa: RUF012
    mm: int | None = None
    started: int | None = 5
    program: str | None = "/bin/one"
    names: tuple[str, str] = ("", "/lib/x")


def recorded(
    path: Path, *processes: Process, host: str = "host", time: int = META.time, uptime: int = 0,
    boot: str = META.boot, refused: int = 0, **more: Any,
) -> str:
    """Write a recording of ``processes`` and return its path; ``more`` are other rows by kind."""
    with whole_file(str(path)) as out:
        writer = Writer(out)
        for one in processes:
            rows(writer, one)
        for record, columns in more.items():
            writer.add(record, columns)
        meta: Meta = META._replace(
            host=host, time=time, uptime=uptime, boot=boot, refused=refused)
        writer.close(meta, FACTS)
    return str(path)


def rows(writer: Writer, one: Process) -> None:
    mm = one.pid if one.mm is None else one.mm
    writer.add("process", {
        "pid": [one.pid], "mm": [mm], "name": [one.name], "started": [one.started],
        "program": [one.program], **{name: [value] for name, value in one.amounts.items()}})
    if mm != one.pid:
        return
    writer.add("vma", {
        "pid": [one.pid] * 2, "vma": [0, 1], "start": np.array([PAGE, 1 << 63], np.uint64),
        "end": np.array([2 * PAGE, (1 << 63) + PAGE], np.uint64), "perms": [3, 13],
        "offset": [0, PAGE], "backing": [0, 1], "name": list(one.names), "rss": [PAGE, None]})
    for run in one.runs:
        step = 0 if run.state == "zero" else 32 if run.state == "swapped" else run.unit // PAGE
        writer.add("page", {
            "pid": [one.pid], "vma": [run.vma],
            "state": Labels(np.array([STATES.index(run.state)]), STATES), "start": [run.start],
            "size": [run.pages * run.unit], "unit": [run.unit], "flags": [1], "level": [0],
            "frame": [run.frame], "step": [step], "kflags": [0], "mapcount": [run.mapcount]})
