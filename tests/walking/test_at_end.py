"""A failure after the walk costs only what was read then, never the walk."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pagewalk.model.columns import (
    I64,
    READ,
    SHARED,
    U64,
    WRITE,
    Backing,
    Flag,
    Leaves,
    VMAs,
    Withheld,
)
from pagewalk.model.errors import BadText, NotPermitted, ProcessGone, SourceUnavailable, Unsupported
from pagewalk.pagetables.decode import NO_DOUBTS, NO_HOLES, Entries
from pagewalk.proc.objects import Object
from pagewalk.proc.smaps import Smaps, parse_smaps
from pagewalk.proc.stall import Stall
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.at_end import LOOKS, ask_hwpoison, look_back
from tests import by_hand
from tests.by_hand import HEAP, PAGE


class Failing:
    """A live process; the questions in ``fails`` are answered with errors, the rest as they are.

    ``asked`` are the questions that it was asked, in order.
    """

    def __init__(self, **fails: Exception) -> None:
        self.fails, self.asked = fails, list[str]()

    def ask(self, question: str) -> None:
        self.asked.append(question)
        if question in self.fails:
            raise self.fails[question]

    def status(self) -> dict[str, int]:
        self.ask("status")
        return {"VmRSS": 2 * PAGE, "VmSwap": PAGE, "VmLck": PAGE}

    def smaps(self, rss: int, name: str = "smaps") -> Smaps:
        self.ask(name)
        return parse_smaps(
            b"%x-%x rw-s 00000000 00:00 0 \nRss: 8 kB\nVmFlags: rd wr lo\n"
            % (HEAP, HEAP + 4 * PAGE)
        )

    def shmem_swap(self, vmas: VMAs) -> I64:
        self.ask("shmem_swap")
        return np.zeros(len(vmas), np.int64)

    def objects(self, vmas: VMAs) -> tuple[list[tuple[Object, bool | None]], list[Withheld]]:
        self.ask("objects")
        return [], []

    def changed(self, vmas: VMAs) -> int:
        self.ask("changed")
        return 0

    def forked(self, vmas: VMAs) -> bool:
        return False


SHMEM = by_hand.vmas([(HEAP, 4, READ | WRITE | SHARED, 0, Backing.SHMEM, "/memfd:x")])
ERRORS = [
    (SourceUnavailable("kernel memory", "its VMAs changed", "freeze the target"), "VMAs changed"),
    (NotPermitted("cannot read it", "permission denied", "run as root"), "permission denied"),
    (Unsupported("maple tree of VMAs", "6.1"), "no maple tree"),
    (BadText("maps", 3, b"odd"), "maps"),
    (OSError(errno.EAGAIN, "the page cache changed in each read"), "page cache changed"),
    (LookupError("shmem_inode_info.swapped"), "BTF has no shmem_inode_info.swapped"),
]


def look(live: object) -> Outcome:
    outcome = Outcome(Stall())
    look_back(live, SHMEM, outcome)  # type: ignore[arg-type]
    return outcome


@pytest.mark.parametrize(
    ("question", "what"),
    [
        ("changed", ["whether the process changed during the walk"]),
        ("shmem_swap", ["swap of shmem"]),
        ("smaps", ["locked"]),
        ("objects", ["unmapped and freed"]),
        ("status", ["locked", "VmSwap and VmRSS"]),
    ],
)
def test_a_question_that_fails_after_the_walk_costs_its_answer(
    question: str, what: list[str]
) -> None:
    outcome = look(Failing(**{question: NotPermitted("cannot read it", "refused", "be root")}))
    assert [why.partition(":")[0] for why in outcome.partial] == what
    assert outcome.done
    assert (outcome.shmem_swap is None) == (question == "shmem_swap")
    assert (outcome.locked is None) == ("locked" in what)
    assert (outcome.vm_rss is None) == (outcome.vm_swap is None) == (question == "status")


@pytest.mark.parametrize(("error", "says"), ERRORS, ids=[type(e).__name__ for e, _ in ERRORS])
def test_whatever_fails_says_why(error: Exception, says: str) -> None:
    (why,) = look(Failing(shmem_swap=error)).partial
    assert says in why


@pytest.mark.parametrize("question", ["changed", "shmem_swap", "smaps", "objects", "status"])
def test_a_process_that_ends_after_the_walk_is_gone(question: str) -> None:
    with pytest.raises(ProcessGone):
        look(Failing(**{question: ProcessGone(1, "ended")}))


def test_each_file_is_read_once_and_the_process_is_checked_last() -> None:
    live = Failing()
    outcome = look(live)
    assert sorted(live.asked) == ["changed", "objects", "shmem_swap", "smaps", "status"]
    assert live.asked[-1] == "changed"
    assert outcome.locked is not None and outcome.locked.tolist() == [True]
    assert (outcome.vm_rss, outcome.vm_swap, outcome.partial) == (2 * PAGE, PAGE, [])


# ---- whether smaps counts the entries of pages lost to a memory error


ANON = by_hand.vmas([
    (HEAP, 64, READ | WRITE, 0, Backing.ANON, ""), (2 * HEAP, 8, READ | WRITE, 0, Backing.ANON, ""),
])
HERE, LOST = Flag.PRESENT, Flag.SOFT | Flag.HWPOISON


class Lossy:
    """A live process that has lost two of five pages in its second VMA.

    ``rss`` are its pages according to smaps, one reading after the other, ``faults`` how many it
    has had, and ``pages`` the entries. ``brief``: its smaps may be read.
    """

    def __init__(
        self,
        rss: tuple[int, ...],
        faults: Callable[[int], int] = lambda call: 7,
        pages: Callable[[int], tuple[Flag, ...]] = lambda call: (HERE, LOST, HERE, LOST, HERE),
        brief: bool = True,
        end: int = 2 * HEAP + 8 * PAGE,
    ) -> None:
        self.rss, self.end, self.brief = list(rss), end, brief
        self.next_faults, self.next_pages = faults, pages
        self.calls = {"faults": 0, "entries": 0}
        self.frames, self.facts, self.target, self.space = None, by_hand.FACTS, self, self

    def count(self, name: str) -> int:
        self.calls[name] += 1
        return self.calls[name] - 1

    def entries(self, vmas: VMAs, ranges: U64, *, frames: bool) -> Iterator[Entries]:
        assert ranges.tolist() == [[2 * HEAP, 2 * HEAP + 8 * PAGE]] and frames
        flags = np.array(self.next_pages(self.count("entries")), np.uint32)
        addr = 2 * HEAP + np.arange(len(flags), dtype=np.uint64) * np.uint64(PAGE)
        shift = np.full(len(flags), 12, np.uint8)
        yield Entries(Leaves(addr, shift, addr, flags, addr), NO_HOLES, NO_DOUBTS)

    def faults(self) -> int:
        return self.next_faults(self.count("faults"))

    def status(self) -> dict[str, int]:
        return {"VmRSS": 5 * PAGE}

    def smaps(self, rss: int) -> Smaps | None:
        assert rss == 5 * PAGE
        if not self.brief:
            return None
        said = self.rss.pop(0) if len(self.rss) > 1 else self.rss[0]
        return parse_smaps(
            b"%x-%x rw-p 00000000 00:00 0 \nRss: 256 kB\nVmFlags: rd wr\n"
            b"%x-%x rw-p 00000000 00:00 0 \nRss: %d kB\nVmFlags: rd wr\n"
            % (HEAP, HEAP + 64 * PAGE, 2 * HEAP, self.end, said * PAGE >> 10)
        )


def asked(source: Lossy) -> tuple[bool | None, list[str]]:
    outcome = Outcome(Stall(), hwpoison={0, 1})
    told = ask_hwpoison(source, ANON, outcome, source.status)  # type: ignore[arg-type]
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


def test_a_process_whose_smaps_takes_too_long_is_not_asked() -> None:
    told, (why,) = asked(Lossy((5,), brief=False))
    assert told is None
    assert "hold the lock of a running process of this size" in why


def test_without_lost_pages_nothing_is_read() -> None:
    lossy, outcome = Lossy(()), Outcome(Stall())
    assert ask_hwpoison(lossy, ANON, outcome, lossy.status) is None  # type: ignore[arg-type]
    assert (outcome.withheld, lossy.calls) == ([], {"faults": 0, "entries": 0})
