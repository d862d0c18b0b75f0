"""Inside an allocator: the whole command against malloc_info(3), and what the target feels."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.opponents import PAGEWALK, environment, program, timed, whole
from benchmarks.rows import Plan, Row, interleave

CHUNKS = 1_000_000


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
    """Read a heap of a million chunks: at rest, and while a thread of the target allocates."""
    count = CHUNKS // plan.scale
    with chunks(count) as target:
        took = interleave(plan.rounds, {
            "heap": target.read,
            "start": lambda: whole([*PAGEWALK, "--version"]),
            "malloc_info": lambda: target.ask("info"),
        })
        target.ask("busy")
        felt = waits(plan.rounds, target)
        stopped = waits(plan.rounds, target, "--freeze")
    what = f"{count:,} chunks"
    wait, idle = f"{what}: the target's longest time between two mallocs", "idle for as long"
    return [
        Row(f"{what}: the whole command heap", "malloc_info in the target", "ms", took["heap"],
            took["malloc_info"]),
        Row(f"{what}: the whole command heap", "the whole command --version", "ms", took["heap"],
            took["start"]),
        Row(f"{wait} during heap", idle, "ms", *felt),
        Row(f"{wait} during heap --freeze", idle, "ms", *stopped),
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
