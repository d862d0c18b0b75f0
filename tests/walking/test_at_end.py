"""A failure after the walk costs only what was read then, never the walk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pagewalk.model.columns import I64, READ, SHARED, U64, WRITE, Backing, Flag, Leaves, VMAs
from pagewalk.model.errors import BadText, NotPermitted, ProcessGone, SourceUnavailable, Unsupported
from pagewalk.pagetables.decode import NO_DOUBTS, NO_HOLES, Entries
from pagewalk.proc.stall import Stall
from pagewalk.proc.swap import Evicted
from pagewalk.proc.target import Target, open_target
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.at_end import LOOKS, SMALL_RSS, ask_hwpoison, look_back
from tests import by_hand
from tests.by_hand import HEAP, PAGE


class Failing:
    """A source with readers that fail after the walk; those not given work as they should."""

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
    what = {"changed": "whether the process changed during the walk", "shmem": "swap of shmem"}
    assert why.startswith(f"{what[reader]}: ")
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


# ---- whether smaps counts the entries of pages lost to a memory error


ANON = by_hand.vmas([
    (HEAP, 64, READ | WRITE, 0, Backing.ANON, ""), (2 * HEAP, 8, READ | WRITE, 0, Backing.ANON, ""),
])
HERE, LOST = Flag.PRESENT, Flag.SOFT | Flag.HWPOISON


class Lossy:
    """The source and target of a process that has lost two of five pages in its second VMA.

    ``rss`` are its pages according to smaps, one reading after the other, ``faults`` how many it
    has had, and ``pages`` the entries.
    """

    def __init__(
        self,
        rss: tuple[int, ...],
        faults: Callable[[int], int] = lambda call: 7,
        pages: Callable[[int], tuple[Flag, ...]] = lambda call: (HERE, LOST, HERE, LOST, HERE),
        state: str = "S",
        vm_rss: int = 5 * PAGE,
        end: int = 2 * HEAP + 8 * PAGE,
    ) -> None:
        self.rss, self.end, self.vm_rss, self.letter = list(rss), end, vm_rss, state
        self.next_faults, self.next_pages = faults, pages
        self.calls = {"faults": 0, "entries": 0}
        self.stall, self.frames, self.target = Stall(), None, self
        self.space, self.facts = self, by_hand.FACTS

    def count(self, name: str) -> int:
        self.calls[name] += 1
        return self.calls[name] - 1

    def entries(self, vmas: VMAs, ranges: U64) -> Iterator[Entries]:
        assert ranges.tolist() == [[2 * HEAP, 2 * HEAP + 8 * PAGE]]
        flags = np.array(self.next_pages(self.count("entries")), np.uint32)
        addr = 2 * HEAP + np.arange(len(flags), dtype=np.uint64) * np.uint64(PAGE)
        shift = np.full(len(flags), 12, np.uint8)
        yield Entries(Leaves(addr, shift, addr, flags, addr), NO_HOLES, NO_DOUBTS)

    def faults(self) -> int:
        return self.next_faults(self.count("faults"))

    def state(self) -> str:
        return self.letter

    def read(self, name: str, stall: Stall | None = None) -> bytes:
        if name == "status":
            return b"VmSize: 1000 kB\nVmRSS: %d kB\n" % (self.vm_rss >> 10)
        assert name == "smaps"
        said = self.rss.pop(0) if len(self.rss) > 1 else self.rss[0]
        return (
            b"%x-%x rw-p 00000000 00:00 0 \nRss: 256 kB\nVmFlags: rd wr\n"
            b"%x-%x rw-p 00000000 00:00 0 \nRss: %d kB\nVmFlags: rd wr\n"
            % (HEAP, HEAP + 64 * PAGE, 2 * HEAP, self.end, said * PAGE >> 10)
        )


def asked(source: Lossy) -> tuple[bool | None, list[str]]:
    outcome = Outcome(Stall(), hwpoison={0, 1})
    told = ask_hwpoison(source, ANON, outcome)  # type: ignore[arg-type]
    return told, outcome.partial


@pytest.mark.parametrize(("rss", "told"), [(5, True), (3, False)])
def test_smaps_tells_whether_it_counts_pages_that_were_lost(rss: int, told: bool) -> None:
    assert asked(Lossy((rss,))) == (told, [])


@pytest.mark.parametrize(
    "source",
    [
        Lossy((4,)),  # one page too many: something else is wrong
        Lossy((6,)),
        Lossy((5,), faults=lambda call: call),  # a page may have come and gone
        Lossy((3,), pages=lambda call: (HERE, LOST, HERE, LOST, *(HERE,) * (call + 1))),
        Lossy((3,), pages=lambda call: (HERE,) * 3),  # the lost pages are gone by now
        Lossy((5,), end=2 * HEAP + 7 * PAGE),  # not the VMA that was walked
    ],
    ids=["less", "more", "faults", "pages", "none", "edge"],
)
def test_smaps_of_a_changing_process_decides_nothing(source: Lossy) -> None:
    told, (why,) = asked(source)
    assert told is None
    assert why.startswith("rss, pss, uss and locked: ")
    assert f"changed in each of {LOOKS} attempts" in why
    assert source.calls["entries"] == 2 * LOOKS


def test_a_changing_process_is_looked_at_again() -> None:
    assert asked(Lossy((4, 5))) == (True, [])
    assert asked(Lossy((5,), faults=lambda call: min(call, 1))) == (True, [])


@pytest.mark.parametrize(("state", "told"), [("S", None), ("T", True)])
def test_smaps_of_a_large_running_process_is_not_read(state: str, told: bool | None) -> None:
    found, reasons = asked(Lossy((5,), state=state, vm_rss=SMALL_RSS + 1024))
    assert found == told
    assert all("hold the lock of a running process of this size" in why for why in reasons)
    assert len(reasons) == (told is None)


def test_without_lost_pages_nothing_is_read() -> None:
    outcome = Outcome(Stall())
    assert ask_hwpoison(Lossy(()), ANON, outcome) is None  # type: ignore[arg-type]
    assert outcome.withheld == []
