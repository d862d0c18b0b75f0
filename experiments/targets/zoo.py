"""Targets that the tests already have: they report what they do, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from tests.machine import prepared
from tests.targets import TARGETS, start

from experiments.family import Family


def zoo(name: str) -> Callable[[], AbstractContextManager[Family]]:
    """Return a starter of the tests' target ``name``, which sets the machine up and restores it."""

    @contextmanager
    def started() -> Iterator[Family]:
        needs = TARGETS[name].needs
        with prepared(*needs) if needs else nullcontext(), start(name) as running:
            parent, *children = running.pids
            roles = [f"child {number}" for number in range(1, len(children) + 1)]
            family = [("parent" if children else name, parent), *zip(roles, children, strict=True)]
            yield lambda: family

    return started
