"""A family of processes: its current members."""

from __future__ import annotations

from collections.abc import Callable

# (role, pid) of each process, the main one first. Browsers start and end processes as they please.
Family = Callable[[], list[tuple[str, int]]]


def alone(role: str, pid: int) -> Family:
    """Return the family of one process."""
    return lambda: [(role, pid)]
