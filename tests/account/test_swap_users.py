"""The census of swap slots: a process that cannot be read never ends the count."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.account import swap_users
from pagewalk.model.columns import U64
from pagewalk.model.errors import (
    BadText,
    NotPermitted,
    PagewalkError,
    ProcessGone,
    SourceUnavailable,
)
from pagewalk.proc.processes import Process


def count(monkeypatch: pytest.MonkeyPatch, error: Exception) -> swap_users.SwapUsers:
    """Return the census of two processes, the first of which raises ``error`` when read."""

    def swap_slots(pid: int, source: str) -> tuple[U64, int]:
        if pid == 1:
            raise error
        return np.array([32, 64], np.uint64), 0

    monkeypatch.setattr(swap_users, "read_processes", lambda: [
        Process(pid, "a", "a", 0, 4096) for pid in (1, 2)
    ])
    monkeypatch.setattr(swap_users, "swap_slots", swap_slots)
    return swap_users.count_swap_users("procfs")


@pytest.mark.parametrize(
    "error",
    [
        BadText("mountinfo", 3, b"a\rb"), SourceUnavailable("procfs", "why", "what"),
        NotPermitted("cannot read", "no", "run as root"), PagewalkError("interrupted"),
        FileNotFoundError(2, "no such file", "task"), OSError(5, "input/output error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_process_that_cannot_be_read_makes_the_count_a_lower_bound(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    users = count(monkeypatch, error)
    assert users.slot.tolist() == [32, 64]
    assert users.missing is not None
    assert "cannot read the swap entries of process 1," in users.missing
    assert users.missing.endswith(str(error))


def test_a_process_that_has_ended_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count(monkeypatch, ProcessGone(1, "ended")).missing is None


def test_in_another_pid_namespace_address_spaces_are_distinguished_by_mm() -> None:
    assert swap_users.same_memory((1, 7), (2, 7), by_pid=False)
    assert not swap_users.same_memory((1, 7), (2, 8), by_pid=False)
    assert not swap_users.same_memory((1, 0), (2, 0), by_pid=False)


def test_only_a_few_of_many_unreadable_processes_are_named() -> None:
    missing = swap_users.why_missing({pid: OSError("no") for pid in range(1, 9)})
    assert missing is not None and "process 1, 2, 3, 4, 5 and 3 more," in missing
