"""Many processes together: `top --once` and `share`, in time, in memory, and what is felt of it."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from functools import partial

from benchmarks.measures.ram import command, peaks
from benchmarks.opponents import output, program, timed, whole
from benchmarks.processes import own, start
from benchmarks.rows import Limit, Of, Plan, Row, interleave, size
from pagewalk.proc.chosen import Wanted, choose
from pagewalk.system.processes import LiveProcesses
from pagewalk.system.top import look_at_top

PROCESSES = 70
CROWDS = (100, 1000, 5000)
CROWD_MB = 300.0
MANY = 1000  # processes that take longer than a second to walk
MAPPINGS = 50_000  # of one process among them
ROLLUP = "C: smaps_rollup of every process"
TOP, SHARE = ["top", "--once"], ["share", "--all"]


def sets(plan: Plan) -> list[Row]:
    """Run `top --once` and `share --all` on 70 processes with 6 GiB together."""
    mib, count = plan.mib(6), max(PROCESSES // plan.scale, 2)
    waits: dict[str, list[float]] = {"idle": [], "top": [], "rollup": []}
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(own("populated", "anon", mib // count))
        target = stack.enter_context(start("mapper", mib // count))
        walked = partial(timed, look_at_everyone)
        walked()  # opens the kernel
        got = interleave(plan.rounds, {
            "top": lambda: command(TOP), "share": lambda: command(SHARE), "theirs": rollup_all,
            "walked": walked, "numpy": lambda: whole([sys.executable, "-c", "import numpy"])})
        for _ in range(plan.rounds):
            spent = 0.0
            for name, work in (("top", lambda: command(TOP)), ("rollup", rollup_all)):
                target.tell("stall")
                spent = max(spent, work() / 1e3)
                waits[name].append(target.tell("stall")["worst_ns"] / 1e6)
            target.tell("stall")
            time.sleep(spent)
            waits["idle"].append(target.tell("stall")["worst_ns"] / 1e6)
        memory = list(peaks({"top --once": TOP, "share --all": SHARE}))
    what = f"{count} processes with {size(mib)}"
    mmap = f"{what}: the worst mmap of one of them during"
    return [
        Row(f"{what}: the whole command top --once", ROLLUP, "ms", got["top"], got["theirs"],
            Limit(1 / 3), note=STARTING),
        Row(f"{what}: python -c 'import numpy', the least that a command of ours can take", ROLLUP,
            "ms", got["numpy"], got["theirs"]),
        Row(f"{what}: top once more, the kernel open", ROLLUP, "ms", got["walked"], got["theirs"]),
        Row(f"{what}: the whole command share --all", ROLLUP, "ms", got["share"], got["theirs"]),
        *memory,
        Row(f"{mmap} top --once", ROLLUP, "ms", tuple(waits["top"]), tuple(waits["rollup"]),
            Limit(1 / 20)),
        Row(f"{mmap} top --once", "idle for as long", "ms", tuple(waits["top"]),
            tuple(waits["idle"])),
    ]


STARTING = "Python and numpy alone take longer to start than that loop takes here"


def look_at_everyone() -> None:
    """Do what each screen of a live top does."""
    look_at_top(choose(Wanted(everyone=True)), "process", LiveProcesses("ebpf"))


def rollup_all() -> float:
    """Read smaps_rollup of every process in C; milliseconds."""
    return int(output([program("rollup_all")]).split()[0]) / 1e6


def crowds(plan: Plan) -> list[Row]:
    """Run both on more and more processes that do nothing, and one with many mappings."""
    rows: list[Row] = []
    for count in CROWDS:
        many, mappings = max(count // plan.scale, 10), MAPPINGS // plan.scale
        with own("crowd", many), own("mappings", mappings, 0, 1):
            rounds = min(plan.rounds, 3)
            got = interleave(rounds, {
                "top --once": partial(command, TOP), "share --all": partial(command, SHARE),
                "first": partial(command, []), "theirs": rollup_all})
            memory = list(peaks({"top --once": TOP, "share --all": SHARE}))
        # It stops after a second; with few processes it does what top does, and looks at RAM.
        most = Limit(1.0) if many >= MANY else None
        rows.append(Row(f"{many} processes: the whole command pagewalk", "pagewalk top --once",
                        "ms", got["first"], got["top --once"], most))
        for name, peak in zip(("top --once", "share --all"), memory, strict=True):
            rows += [
                Row(f"{many} processes: the whole command {name}", ROLLUP, "ms", got[name],
                    got["theirs"]),
                Row(f"{many} processes: {peak.measure}", "", "MB", peak.ours,
                    limit=Limit(CROWD_MB, Of.WORST)),
            ]
    return rows
