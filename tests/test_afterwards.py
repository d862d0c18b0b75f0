"""What comes after the walk costs what it would have told, never the walk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from pagewalk.afterwards import look_back
from pagewalk.errors import BadText, NotPermitted, ProcessGone, SourceUnavailable, Unsupported
from pagewalk.outcome import Outcome
from pagewalk.pages import I64, READ, SHARED, WRITE, Backing, VMAs
from pagewalk.proc.stall import Stall
from pagewalk.proc.swap import Evicted
from pagewalk.proc.target import Target, open_target
from tests import by_hand
from tests.by_hand import HEAP


class Failing:
    """A source whose reader after the walk fails; what is not given is as it should be."""

    stall = Stall()

    def __init__(self, target: Target, **fails: Exception) -> None:
        self.target, self.fails = target, fails

    def changed(self, vmas: VMAs) -> int:
        if "changed" in self.fails:
            raise self.fails["changed"]
        return 0

    def forked(self, vmas: VMAs) -> bool:
        return False

    def shmem_swapped(self, vmas: VMAs, rows: I64) -> Iterator[Evicted]:
        for _ in rows:
            if "shmem" in self.fails:
                raise self.fails["shmem"]
            yield lambda offset, size: 0

    def ended_by(self, keys: list[tuple[int, int]]) -> list[bool | None]:
        return [None] * len(keys)


SHMEM = by_hand.vmas([(HEAP, 4, READ | WRITE | SHARED, 0, Backing.SHMEM, "/memfd:x")])
ERRORS = [
    (SourceUnavailable("kernel memory", "its VMAs changed", "freeze the target"), "VMAs changed"),
    (NotPermitted("cannot read it", "permission denied", "run as root"), "permission denied"),
    (Unsupported("maple tree of VMAs", "6.1"), "no maple tree"),
    (BadText("maps", 3, b"odd"), "maps"),
    (OSError(errno.EAGAIN, "the page cache changed in each read"), "page cache changed"),
    (LookupError("shmem_inode_info.swapped"), "BTF has no shmem_inode_info.swapped"),
]


@pytest.mark.parametrize(("error", "says"), ERRORS, ids=[type(e).__name__ for e, _ in ERRORS])
@pytest.mark.parametrize("reader", ["changed", "shmem"])
def test_a_reader_that_fails_after_the_walk_makes_it_partial(
    reader: str, error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagewalk.proc.swap.swap_in_use", lambda: True)
    target = open_target(os.getpid())
    outcome = Outcome(Stall())
    look_back(Failing(target, **{reader: error}), SHMEM, outcome)  # type: ignore[arg-type]
    target.close()
    (why,) = outcome.partial
    assert why.startswith({"changed": "a consistent moment: ", "shmem": "swap of shmem: "}[reader])
    assert says in why
    assert outcome.done
    assert outcome.locked is not None and outcome.vm_rss
    assert (outcome.shmem_swap is None) == (reader == "shmem")


@pytest.mark.parametrize("reader", ["changed", "shmem"])
def test_a_process_that_ends_after_the_walk_is_gone(
    reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagewalk.proc.swap.swap_in_use", lambda: True)
    target = open_target(os.getpid())
    gone = ProcessGone(target.pid, "ended")
    with pytest.raises(ProcessGone):
        look_back(Failing(target, **{reader: gone}), SHMEM, Outcome(Stall()))  # type: ignore[arg-type]
    target.close()


def test_a_file_that_is_refused_after_the_walk_makes_it_partial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: Target, name: str, *more: object) -> bytes:
        raise NotPermitted(f"cannot read {name}", "permission denied", "run as root")

    monkeypatch.setattr(Target, "read", refuse)
    target = open_target(os.getpid())
    outcome = Outcome(Stall())
    look_back(Failing(target), SHMEM, outcome)  # type: ignore[arg-type]
    target.close()
    assert outcome.done
    assert [why.partition(":")[0] for why in outcome.partial] == [
        "locked", "unmapped", "VmSwap and VmRSS",
    ]
    assert outcome.locked is None and outcome.vm_swap is None
