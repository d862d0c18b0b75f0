"""The whole of RAM and of every cgroup: the commands, in time and in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.charges import ROOT
from tests.system import large

from benchmarks.measures.frames import EVERYTHING
from benchmarks.opponents import PAGEWALK, environment, output, program, timed
from benchmarks.rows import Limit, Of, Plan, Row, interleave, size
from pagewalk.sources.ram import open_ram

LIMIT_MB = 150.0
FILES, GROUPS = 5000, 500

STARTING = "to start Python and numpy takes longer than a scan of little RAM"

# Writes files, each from inside the next of the groups, and stays in the last one.
WRITER = """
import os, sys
folder, files, size, *groups = sys.argv[1:]
for at in range(int(files)):
    if at < len(groups) or len(groups) > 1:
        with open(groups[at % len(groups)] + "/cgroup.procs", "w") as procs:
            procs.write(str(os.getpid()))
    with open(f"{folder}/{at}", "wb") as file:
        file.write(b"x" * int(size))
os.sync()
print("ready", flush=True)
sys.stdin.read()
"""

# The folds of tests.system.large.
LARGE = {
    "count": "count them by kind and by 500 cgroups",
    "kernel": "keep the kernel's own",
    "files": "add them up by a million files and by cgroup",
    "systems": "look up the file systems of a million files",
    "group": "keep those of a cgroup",
    "ram": "all that ram does with them",
    "explain": "all that explain CGROUP does with them",
}

# The most memory that the command ever had; VmHWM starts from 0 at exec, unlike ru_maxrss.
PEAK = """
import sys
from pathlib import Path
from pagewalk.cli import main
main([*sys.argv[1:], "--quiet", "--output", "/dev/null"])
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""


def ram(plan: Plan) -> list[Row]:
    """Run `ram` and `ram --files`, beside a program that only reads what /proc says of frames."""
    commands = {"ram": ["ram"], "ram --source procfs": ["ram", "--source", "procfs"],
                "ram --files": ["ram", "--files"]}
    return [*compared(plan, commands, theirs={"ram": Limit(1 / 3)}), *peaks(commands)]


def cgroups(plan: Plan) -> list[Row]:
    """Run `explain CGROUP` on one with many files, and `cgroups` on many, beside the same."""
    mib, files, count = plan.mib(2), FILES // plan.scale, GROUPS // plan.scale
    with memory_groups(1) as one, written(one, files, (mib << 20) // files):
        path = f"/{one[0].relative_to(ROOT)}"
        name = f"explain CGROUP, {size(mib)} in {files} files"
        explain = {name: ["explain", "--cgroup", path]}
        rows = [*compared(plan, explain, own={name: Limit(2)}), *peaks(explain)]
    with memory_groups(count) as many, written(many, count, 1 << 16):
        name = f"cgroups, {count} of them with a file each"
        table = {name: ["cgroups"]}
        rows += [*compared(plan, table, own={name: Limit(2)}), *peaks(table)]
    return rows


def ram_large(plan: Plan) -> list[Row]:
    """Add up made-up frames of 256 GiB in each of the ways that the commands do."""
    rows = []
    for fold, what in LARGE.items():
        # A run for each frame is the worst there is.
        for pages, runs in ((16, "runs of 16 frames"), (1, "every frame a run")):
            if pages == 1 and plan.quick:
                continue
            peak, took = large.measured(fold, pages)
            name = f"256 GiB of made-up frames, {runs}: {what}"
            rows += [Row(name, "", "ms", (took,)),
                     Row(f"{name}, peak memory", "", "MB", (peak,),
                         limit=Limit(LIMIT_MB, Of.WORST))]
    return rows


def compared(
    plan: Plan, commands: dict[str, list[str]], *, theirs: dict[str, Limit] | None = None,
    own: dict[str, Limit] | None = None,
) -> Iterator[Row]:
    """Yield the time of each command against a C program's, and against our own scan.

    ``theirs`` and ``own`` are the limits on the one and on the other, by command.
    """
    source = open_ram("ebpf")
    got = interleave(
        plan.rounds,
        {
            **{name: partial(command, words) for name, words in commands.items()},
            "scan": lambda: timed(lambda: deque(source.frames(), 0)),
            "theirs": lambda: int(output([program("kpage_all")]).split()[0]) / 1e6,
        },
    )
    for name in commands:
        what = f"the whole command {name}"
        yield Row(what, EVERYTHING, "ms", got[name], got["theirs"], (theirs or {}).get(name))
        yield Row(what, "our own scan of all frames", "ms", got[name], got["scan"],
                  (own or {}).get(name), note=STARTING if name in (own or {}) else "")


def command(words: Sequence[str]) -> float:
    """Run pagewalk as a user would; milliseconds. What moves may stay unexplained (4)."""
    begin = time.perf_counter_ns()
    done = subprocess.run([*PAGEWALK, *words], check=False, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, env=environment())
    took = (time.perf_counter_ns() - begin) / 1e6
    if done.returncode not in (0, 3, 4):  # 3: what /proc cannot tell is withheld
        raise RuntimeError(f"pagewalk {' '.join(words)}: {done.stderr}")
    return took


def peaks(commands: dict[str, list[str]]) -> Iterator[Row]:
    """Yield the most memory that each command ever had."""
    for name, words in commands.items():
        kib = int(output([sys.executable, "-c", PEAK, *words]))
        yield Row(f"peak memory of {name}", "", "MB", (kib * 1024 / 1e6,),
                  limit=Limit(LIMIT_MB, Of.WORST))


# ---- cgroups that are charged for files


@contextmanager
def memory_groups(count: int) -> Iterator[list[Path]]:
    """Make ``count`` memory cgroups below one of our own; they are removed when the block ends."""
    outer = ROOT / f"pagewalk-benchmark-{os.getpid()}"
    outer.mkdir()
    try:
        control = outer / "cgroup.subtree_control"
        if control.exists():
            control.write_text("+memory")
        groups = [outer / str(number) for number in range(count)]
        for group in groups:
            group.mkdir()
        yield groups
    finally:
        for group in (*(path for path in outer.iterdir() if path.is_dir()), outer):
            remove(group)


def remove(group: Path) -> None:
    for _ in range(100):  # the kernel may need a moment after the last process
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.1)
    group.rmdir()


@contextmanager
def written(groups: list[Path], files: int, each: int) -> Iterator[None]:
    """Charge ``groups`` in turn for ``files`` files of ``each`` bytes, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="pagewalk-benchmark-") as folder:
        words = [sys.executable, "-c", WRITER, folder, str(files), str(each), *map(str, groups)]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError("the files could not be written")
                yield
            finally:
                process.kill()
