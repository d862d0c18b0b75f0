"""Start a target, wait, stop it, read it by every reader: that is a run; RUNS of them a result."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.quiet import stopped, wait_until_quiet
from experiments.readers import READERS, Numbers
from experiments.targets import TARGETS
from experiments.walks import Walked, walk_by
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import Target, open_target

TRIES = 5


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a target in one run.

    walks: by source. theirs: bytes by reader and its own word. took_ns, held_ns: of each reader,
    the whole time and the longest single read; held_ns has no row for programs.
    """

    role: str
    walks: dict[str, Walked]
    theirs: dict[str, Numbers]
    took_ns: dict[str, int]
    held_ns: dict[str, int]


@dataclass(frozen=True, slots=True)
class Run:
    """One start of a target; quiet says whether it had become idle."""

    quiet: bool
    processes: list[Process]


@dataclass(frozen=True, slots=True)
class Result:
    """All runs of a target."""

    target: str
    runs: list[Run]


def measure(name: str, runs: int, sources: Sequence[str]) -> Result:
    """Return ``runs`` runs of target ``name``, each started anew."""
    return Result(name, [run(name, sources) for _ in range(runs)])


def run(name: str, sources: Sequence[str]) -> Run:
    """Start the target once and read each process of it while the family is stopped."""
    target = TARGETS[name]
    with target.start() as family:
        quiet = wait_until_quiet(family, target.settle)
        members = family()
        with stopped([pid for _, pid in members]):
            return Run(quiet, [read(role, pid, sources) for role, pid in members])


def read(role: str, pid: int, sources: Sequence[str]) -> Process:
    """Read one process by every source and every reader.

    The kernel may take pages even from a stopped process: if status changed between the first
    read and the last, all is read again.
    """
    target = open_target(pid)
    try:
        for _ in range(TRIES):
            before = READERS["status"](target, Stall())
            walks = {source: walk_by(source, pid) for source in sources}
            found = Process(role, walks, *read_theirs(target))
            if before == READERS["status"](target, Stall()):
                break
        return found
    finally:
        target.close()


def read_theirs(target: Target) -> tuple[dict[str, Numbers], dict[str, int], dict[str, int]]:
    """Return what every reader says, its whole time, and its longest read."""
    theirs, took, held = {}, {}, {}
    for name, reader in READERS.items():
        stall = Stall()
        begin = time.perf_counter_ns()
        theirs[name] = reader(target, stall)
        took[name] = time.perf_counter_ns() - begin
        if stall.reads:
            held[name] = stall.longest_ns
    return theirs, took, held


def write(result: Result, folder: Path) -> None:
    """Write a result as raw JSON, with ledgers and groups of VMAs of the last run only."""
    document = asdict(result)
    for past in document["runs"][:-1]:
        for process in past["processes"]:
            for walked in process["walks"].values():
                del walked["groups"], walked["ledger"]
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, separators=(",", ":"))
    (folder / f"{result.target}.json").write_text(text.replace('{"role"', '\n{"role"') + "\n")


def load(path: Path) -> Result:
    """Read a result back."""
    document = json.loads(path.read_text())
    runs = [
        Run(past["quiet"], [process(row) for row in past["processes"]])
        for past in document["runs"]
    ]
    return Result(document["target"], runs)


def process(row: dict[str, Any]) -> Process:
    empty: dict[str, Any] = {"groups": [], "ledger": []}
    walks = {name: Walked(**{**empty, **found}) for name, found in row["walks"].items()}
    return Process(**{**row, "walks": walks})


