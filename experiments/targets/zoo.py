"""Targets that the tests already have: they say what they do, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from experiments.family import Family
from tests.machine import prepared
from tests.targets import TARGETS, start


def zoo(name: str) -> Callable[[], AbstractContextManager[Family]]:
    """Return what starts the tests' target ``name``, on a machine set up for it and put back."""

    @contextmanager
    def started() -> Iterator[Family]:
        with prepared(*TARGETS[name].needs), start(name) as running:
            parent, *children = running.pids
            roles = [f"child {number}" for number in range(1, len(children) + 1)]
            family = [("parent" if children else name, parent), *zip(roles, children, strict=True)]
            yield lambda: family

    return started
