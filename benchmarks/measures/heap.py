"""Inside an allocator: the whole command against malloc_info(3), and what the target feels."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.opponents import PAGEWALK, environment, output, program, timed, whole
from benchmarks.processes import available_mib
from benchmarks.rows import Limit, Of, Plan, Row, interleave

MILLIONS = (1, 10)
MIB_PER_MILLION = 540  # of the target, chunks and pointers to them
AT_ONCE = 4 << 20
ROUNDS = 5  # of half a minute each, with ten million chunks
# VmHWM belongs to the address space: unlike ru_maxrss, it starts from 0 at exec.
PEAK = """
import sys
from pathlib import Path
from pagewalk.cli import main
main(["heap", sys.argv[1], "--output", "/dev/null"])
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""


@dataclass(frozen=True)
class Chunks:
    """A running chunks.c."""

    process: subprocess.Popen[str]

    def ask(self, word: str) -> float:
        """Return the milliseconds that it answers with."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def read(self, *options: str) -> float:
        """Run the command, whose exit code says whether it caught the process at rest."""
        command = [*PAGEWALK, "heap", str(self.process.pid), *options]
        return timed(lambda: subprocess.run(command, check=False, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.DEVNULL, env=environment()))

    def copy(self) -> float:
        """Only copy its heap, as any reader from outside has to."""
        maps = Path(f"/proc/{self.process.pid}/maps").read_text().splitlines()
        (words,) = [line.split()[0] for line in maps if line.endswith("[heap]")]
        low, high = (int(word, 16) for word in words.split("-"))
        with open(f"/proc/{self.process.pid}/mem", "rb", 0) as file:
            part = bytearray(AT_ONCE)
            return timed(lambda: [os.preadv(file.fileno(), [part], at)
                                  for at in range(low, high, AT_ONCE)])

    def faults(self) -> float:
        """Return how many page faults it has had."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return int(stat[7]) + int(stat[9])  # minflt, majflt

    def faults_during_heap(self) -> float:
        """Return how many page faults it has while its heap is read."""
        before = self.faults()
        self.read()
        return self.faults() - before

    def peak(self) -> float:
        """Return the most memory that the command ever had, in MB."""
        return int(output([sys.executable, "-c", PEAK, str(self.process.pid)])) * 1024 / 1e6


@contextmanager
def chunks(count: int) -> Iterator[Chunks]:
    command = [program("chunks"), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        try:
            if not process.stdout or not process.stdout.readline():
                raise RuntimeError("chunks ended before it was ready")
            yield Chunks(process)
        finally:
            process.kill()


def heap(plan: Plan) -> list[Row]:
    """Read heaps of one and ten million chunks: at rest, and while a thread of them allocates."""
    rows = []
    for millions in MILLIONS:
        what = f"{millions * 1_000_000 // plan.scale:,} chunks"
        if available_mib() < 2 * millions * MIB_PER_MILLION // plan.scale:
            rows.append(Row(f"{what}: the whole command heap", "malloc_info in the target", "ms",
                            missing="the machine does not have so much memory to spare"))
            continue
        some = replace(plan, rounds=min(plan.rounds, ROUNDS))
        with chunks(millions * 1_000_000 // plan.scale) as target:
            rows += at_rest(some, target, what)
            target.ask("busy")
            rows += busy(some, target, what)
    return rows


def at_rest(plan: Plan, target: Chunks, what: str) -> list[Row]:
    """Measure how long it takes, against what is quick from inside, and the least from outside."""
    took = interleave(plan.rounds, {
        "heap": target.read,
        "start": lambda: whole([*PAGEWALK, "--version"]),
        "malloc_info": lambda: target.ask("info"),
        "copy": target.copy,
        "faults": target.faults_during_heap,
        "peak": target.peak,
    })
    command = f"{what}: the whole command heap"
    return [
        Row(command, "malloc_info in the target", "ms", took["heap"], took["malloc_info"]),
        Row(command, "only copying the heap", "ms", took["heap"], took["copy"]),
        Row(command, "the whole command --version", "ms", took["heap"], took["start"]),
        Row(f"{what}: page faults of the target during heap", "", "faults", took["faults"],
            limit=Limit(0, Of.WORST)),
        Row(f"{what}: peak memory of heap", "", "MB", took["peak"]),
    ]


def busy(plan: Plan, target: Chunks, what: str) -> list[Row]:
    """Measure what a thread of the target feels that allocates."""
    wait, idle = f"{what}: the target's longest time between two mallocs", "idle for as long"
    return [
        Row(f"{wait} during heap", idle, "ms", *waits(plan.rounds, target)),
        Row(f"{wait} during heap --freeze", idle, "ms", *waits(plan.rounds, target, "--freeze"),
            note="at most 500 ms, or not stopped at all"),
    ]


def waits(
    rounds: int, target: Chunks, *options: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the target's worst waits during the command, and idle for as long, in ms."""
    during, idle = [], []
    for _ in range(rounds):
        target.ask("worst")
        took = target.read(*options)
        during.append(target.ask("worst"))
        time.sleep(took / 1e3)
        idle.append(target.ask("worst"))
    return tuple(during), tuple(idle)
