"""Thousands of cgroups: all are listed, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.live.command import PAGEWALK, Ran, run
from tests.machine import fewer, memory_cgroup

pytestmark = pytest.mark.live
MANY, CONTROL = fewer(10_000), "cgroup.subtree_control"
# VmHWM belongs to the address space: ru_maxrss would include the tests' own before exec.
MEASURED = """
import sys
from pathlib import Path
from pagewalk.cli import main
code = main(sys.argv[1:])
sys.stderr.write(Path("/proc/self/status").read_text())
sys.exit(code)
"""
NOBODY = ("setpriv", "--reuid=65534", "--clear-groups")


@contextmanager
def below(top: Path) -> Iterator[None]:
    """Make so many groups below ``top``, and remove them."""
    paths, control = [top / f"group{number}" for number in range(MANY)], top / CONTROL
    if control.exists():  # version 2
        control.write_text("+memory")
    try:
        for path in paths:
            path.mkdir()
        yield
    finally:
        for path in paths:
            with suppress(FileNotFoundError):
                path.rmdir()


def test_all_are_listed_in_bounded_memory() -> None:
    with memory_cgroup("many") as top:
        path = f"/{top.name}"
        with below(top):
            found = measured("cgroups", "--format", "json")
            screen = measured("cgroups", "--limit", 3)
            counted = measured("cgroups", "--format", "json", before=NOBODY)
    for ran, code in ((found, 0), (counted, 3)):
        assert ran.code == code, ran.err
        listed = [row["path"] for row in ran.json["cgroups"]]
        assert len(set(listed)) == len(listed)
        assert sum(one.startswith(f"{path}/group") for one in listed) == MANY
    assert screen.code == 0
    [more] = re.findall(r"(?m)^(\d+) more: --limit", screen.out)
    assert int(more) >= MANY + 2 - 3  # the root and ours are above them


def measured(*words: object, before: tuple[str, ...] = ()) -> Ran:
    """Run pagewalk, which must have needed at most 150 MB at any time."""
    ran = run(*before, PAGEWALK[0], "-c", MEASURED, *words)
    [peak] = re.findall(r"(?m)^VmHWM:\s+(\d+) kB$", ran.err)
    assert int(peak) << 10 <= 150_000_000
    return ran
