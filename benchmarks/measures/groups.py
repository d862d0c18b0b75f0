"""What it costs to say what the memory is: the table with its groups, against the table alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.opponents import timed
from benchmarks.processes import own, start
from benchmarks.rows import Limit, Plan, Row, interleave
from pagewalk.account.groups import by_kind
from pagewalk.account.table import table
from pagewalk.proc.stacks import read_stack_pointers
from pagewalk.sources import Source, close, open_process

MOST = 1.15
WARM = 3  # walks after which the programs that save copying are loaded


def groups(plan: Plan) -> list[Row]:
    """Time the walk with and without groups: much memory, many VMAs."""
    rows = []
    size, count = plan.mib(1), 26_000 // plan.scale
    with start("dense", size) as running, opened(running.pid) as source:
        rows.append(compared(f"dense {size} MiB", source, plan))
    with own("mappings", count, 0, 16) as pid, opened(pid) as source:
        rows.append(compared(f"{count} VMAs", source, plan))
    return rows


@contextmanager
def opened(pid: int) -> Iterator[Source]:
    source = open_process(pid)
    try:
        for _ in range(WARM):
            table(source)
        yield source
    finally:
        close(source)


def compared(what: str, source: Source, plan: Plan) -> Row:
    assert source.live is not None
    target = source.live.target
    got = interleave(plan.rounds, {
        "ours": lambda: timed(lambda: by_kind(table(source), read_stack_pointers(target))),
        "theirs": lambda: timed(lambda: table(source)),
    })
    return Row(f"{what}: the table with what the memory is", "the table alone", "ms", got["ours"],
               got["theirs"], Limit(MOST))
