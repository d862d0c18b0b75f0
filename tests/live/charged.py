"""Groups of our own, programs that charge them in a known way, and what is said of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pagewalk.proc.cgroup_numbers import read_numbers
from pagewalk.proc.cgroups import find_hierarchy
from tests.live.bracket import look_again
from tests.live.command import pagewalk
from tests.machine import remove_group

MIB = 1 << 20


class Group:
    """A memory cgroup that was made for a test."""

    def __init__(self, path: Path) -> None:
        hierarchy = find_hierarchy()
        self.directory = path
        self.path = "/" + str(path.relative_to(hierarchy.mount))

    @property
    def procs(self) -> str:
        """Return where processes join it."""
        return str(self.directory / "cgroup.procs")

    def stat(self, name: str) -> int:
        """Return a line of its memory.stat, bytes."""
        numbers = read_numbers(find_hierarchy(), self.path)
        assert numbers.stat is not None
        return numbers.stat[name]


@contextmanager
def group(name: str, parent: Group | None = None) -> Iterator[Group]:
    """Make a memory cgroup, and remove it when what ran in it has ended."""
    above = Path(find_hierarchy().mount) if parent is None else parent.directory
    control = above / "cgroup.subtree_control"  # version 2 alone has it
    if control.exists():
        control.write_text("+memory")
    path = above / name
    path.mkdir()
    try:
        yield Group(path)
    finally:
        remove_group(path)


class Running:
    """A case of tests/targets/charges.py that runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.facts = self._told()

    def step(self) -> dict[str, Any]:
        """Let it go on, and return what it then did."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self.facts = self._told()
        return self.facts

    def die(self) -> int:
        """Let it go on until it is killed, and return by which signal."""
        while self._process.poll() is None:
            with suppress(AssertionError, BrokenPipeError):
                self.step()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        return -self._process.returncode

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program ended"
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def charging(where: Group, case: str, *arguments: object) -> Iterator[Running]:
    """Run a case of tests/targets/charges.py in a group until the block ends."""
    words = [sys.executable, "-m", "tests.targets.charges", where.procs, case,
             *map(str, arguments)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def explained(where: Group, *options: object, idle: bool = True) -> dict[str, Any]:
    """Return what is said of a group; nothing of it may be unexplained.

    Of a group whose processes wait nothing may have changed meanwhile either.
    """
    def look() -> dict[str, Any]:
        ran = pagewalk("explain", where.path, "--format", "json", *options)
        assert ran.code == 0, f"{ran.code}: {ran.err}"
        found: dict[str, Any] = ran.json
        left = [line for line in found["ledger"] if line["unexplained"]]
        assert left == []
        told = ("pages", "kernel_pages", "kernel_objects", "counted_by_the_kernel",
                "charged_in_advance", "percpu_not_told", "second_pages")
        assert found["changed_meanwhile"] == 0 or not idle
        assert sum(found[key] for key in told) == found["charged"] - found["changed_meanwhile"]
        return found

    return look_again(look, 9)


def sentences(where: Group) -> str:
    """Return what is written above the table, in one line."""
    ran = pagewalk("explain", where.path)
    assert ran.code == 0, ran.err
    return " ".join(ran.out.split("\n\n")[1].split())


def caches(found: dict[str, Any]) -> dict[str, int]:
    """Return how many kernel objects there are of each cache."""
    return {row["cache"]: row["objects"] for row in found["caches"]}


def mapped(found: dict[str, Any]) -> dict[str, int]:
    """Return what the processes map of the charge, by kind."""
    return {row["kind"]: row["bytes"] for row in found["mapped"]}


def anonymous(found: dict[str, Any]) -> int:
    """Return the bytes of anonymous memory, in huge pages or not: some kernels always make them."""
    return sum(found["kinds"].get(kind, 0) for kind in ("anon", "anon_huge"))


def files(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the listed files by path."""
    return {row["path"] or row["inside"]: row for row in found["files"]}
