"""What is measured: TARGETS by letter, as the report and its sequel name them.

Each starts real processes and yields a function that lists the current family, [(role, pid)], the
main process first. To add one, write a context manager in a module here, and add a row below.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from experiments.family import Family
from experiments.targets.browsers import chromium, firefox
from experiments.targets.servers import jvm, postgresql
from experiments.targets.small import hello, hello_static, top
from experiments.targets.zoo import zoo


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    letter: its experiment. title: what it is. start: a context manager that yields its family.
    settle: seconds without work after which it is quiet.
    """

    letter: str
    title: str
    start: Callable[[], AbstractContextManager[Family]]
    settle: float = 0.2


TARGETS = {
    "hello": Target("a", "hello world in C, dynamically linked", hello),
    "hello-static": Target("a", "hello world in C, statically linked", hello_static),
    "top": Target("b", "top in a terminal", top),
    "firefox": Target("c", "Firefox, headless, a page of one line", firefox, 5.0),
    "chromium": Target("c", "Chromium, headless, a page of one line", chromium, 5.0),
    "fork": Target("d", "a fork family that diverges: three children copied 8, 16 and 24 of 48"
                   " pages", zoo("fork_cow")),
    "reservation": Target("e", "16 TiB reserved, 1000 pages of it written", zoo("reservation")),
    "read-only": Target("f", "anonymous memory, 64 pages only read, 32 written",
                        zoo("zero_reads")),
    "hugetlb": Target("g", "two hugetlb pages of 2 MiB", zoo("hugetlb_private")),
    "thp": Target("g", "one transparent huge page", zoo("thp")),
    "swap": Target("h", "64 of 80 pages pushed to swap (zram), 24 of them used again",
                   zoo("swap_private")),
    "jvm": Target("i", "a Java virtual machine that waits", jvm, 2.0),
    "postgresql": Target("i", "PostgreSQL, 128 MiB of shared_buffers, four clients that read the"
                         " same table", postgresql, 2.0),
}
# Cheap enough for every run of the tests.
QUICK = ("a", "b", "e", "f")
