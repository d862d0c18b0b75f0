"""Filter expressions over pages, such as ``anon,~ksm``: all terms must match, ``~`` negates."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from pagewalk.model.bits import KPF, kpf
from pagewalk.model.columns import ENTRY_FLAGS, Bool, Flag, Pages, State
from pagewalk.model.errors import BadRequest
from pagewalk.model.rules import IS_PRESENT, LAZYFREE
from pagewalk.model.states import holds
from pagewalk.walking.walk import Walk

Test = Callable[[Pages], Bool]

# Terms that not every walk can answer: the field of Tells that says whether it can, and the reason
# if it cannot.
UNTOLD = {
    **dict.fromkeys(
        ("write", "exec", "accessed", "pte_dirty", "prot_none", "lazyfree", "empty", "not_mapped"),
        ("tables", "it requires reading page tables"),
    ),
    "pmd": ("huge", "this kernel's pagemap does not show huge entries (PAGEMAP_SCAN, 6.7)"),
    "young": ("young", "it requires reading struct page"),
    "ksm": ("ksm", "this kernel marks every anonymous page as KSM, or page frames are withheld"),
    "zero": ("zeros", "without page frames or PAGEMAP_SCAN (6.7) it looks like any other page"),
}

NUMBERS = ("mapcount", "pfn")
COMPARISONS = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne,
    ">": operator.gt, "<": operator.lt, "=": operator.eq,
}


def state_test(*states: State) -> Test:
    wanted = np.zeros(len(State), bool)
    wanted[list(states)] = True
    return lambda pages: wanted[pages.state]


def flag_test(flag: Flag) -> Test:
    return lambda pages: pages.flags & np.uint32(flag) != 0


def kflag_test(name: str) -> Test:
    def test(pages: Pages) -> Bool:
        if pages.kflags is None:
            raise BadRequest(f"--where {name}: page frames are withheld, so their flags are too;"
                             " run as root")
        mask: Bool = pages.kflags & kpf(name) != 0
        return mask

    return test


def is_exclusive(pages: Pages) -> Bool:
    """Return a mask of the pages that are mapped exactly once.

    pagemap has a bit for it (56). A page table has none, so the mapcount decides, except for
    hugetlb memory, whose tables may be shared: there both sources set the flag.
    """
    told: Bool = pages.flags & np.uint32(Flag.EXCLUSIVE.value) != 0
    ask = pages.flags & np.uint32(Flag.NORMAL.value) != 0
    ask &= pages.state != State.HUGETLB.value
    if not ask.any():
        return told
    if pages.mapcount is None:
        raise BadRequest("--where exclusive: page frames are withheld; run as root")
    return np.where(ask, pages.mapcount == np.uint64(1), told)


def is_lazyfree(pages: Pages) -> Bool:
    """Return a mask of the pages released with MADV_FREE and not written since (LazyFree)."""
    if pages.kflags is None:
        raise BadRequest("--where lazyfree: page frames are withheld, so their flags are too;"
                         " run as root")
    return state_test(State.ANON)(pages) & holds(LAZYFREE, pages.flags, pages.kflags)


def terms() -> dict[str, Test]:
    """Return every name an expression may use, with its test; states override frame flags."""
    tests = {name: kflag_test(name) for name in KPF}
    tests |= {name: flag_test(flag) for name, flag in ENTRY_FLAGS.items()}
    tests |= {"exclusive": is_exclusive, "lazyfree": is_lazyfree}
    tests |= {s.label: state_test(s) for s in State}
    tests["present"] = lambda pages: IS_PRESENT[pages.state]
    tests["not_present"] = lambda pages: ~IS_PRESENT[pages.state]
    return tests


def parse_where(expression: str) -> Test:
    """Return the test that ``expression`` describes; raises BadRequest naming an unknown term.

    Terms are separated by commas and all must match: a state, ``present``, ``not_present``, a
    kpageflags name, an entry flag, or a comparison of ``mapcount`` or ``pfn`` with a number.
    """
    known = terms()
    tests = [parse_term(term.strip(), known) for term in expression.split(",")]
    return lambda pages: np.logical_and.reduce([test(pages) for test in tests])


def check_told(expression: str, walk: Walk[Any]) -> None:
    """Raise BadRequest for a term of ``expression`` that ``walk`` cannot answer.

    No page would match it or, with ``~``, every page would.
    """
    for term in expression.split(","):
        name = term.strip().removeprefix("~").strip().lower()
        field, why = UNTOLD.get(name, ("", ""))
        if field and not getattr(walk.tells, field):
            way = "; use --source ebpf or kcore" if field in ("tables", "young") else ""
            raise BadRequest(f"--where {name}: source '{walk.source}' does not show it: {why}{way}")


def parse_term(term: str, known: dict[str, Test]) -> Test:
    negate = term.startswith("~")
    name = term.removeprefix("~").strip().lower()
    test = comparison(name) or known.get(name)
    if test is None:
        raise BadRequest(f"--where: {unknown(name, known)}")
    found = test
    return (lambda pages: ~found(pages)) if negate else found


def unknown(name: str, known: dict[str, Test]) -> str:
    from difflib import get_close_matches

    column = re.fullmatch(r"(\w+)\s*(>=|<=|!=|==|=|>|<)(.*)", name, re.DOTALL)
    if column and column[1] in NUMBERS and column[2] != "==":
        example = f"{column[1]}{column[2]}"
        return (f"'{name}' does not compare {column[1]} with a number; write {example}2 or"
                f" {example}0x2")
    if name in NUMBERS:
        return f"compare {name} with a number: {name}>2 or {name}=0x2"
    if column and column[1] in NUMBERS:
        return f"write {column[1]}={column[3].strip()}, with one ="
    if column:
        near = get_close_matches(column[1], NUMBERS, 1)
        meant = f"did you mean '{near[0]}'?" if near else f"only {' and '.join(NUMBERS)} can be"
        return f"'{column[1]}' cannot be compared with a number; {meant}"
    if (other := re.fullmatch(r"(?:!|not |no |-)\s*(\w+)", name)) and other[1] in known:
        return f"unknown term '{name}'; write ~{other[1]}"
    if re.search(r"&| and ", name):
        terms = (term.strip() for term in re.split(r"&+| and ", name))
        return f"unknown term '{name}'; a comma means and: {','.join(terms)}"
    near = get_close_matches(name, [*known, *NUMBERS], 1)
    if near:
        return f"unknown term '{name}'; did you mean '{near[0]}'?"
    return (f"unknown term '{name}'; choose from: {', '.join(sorted(known))}, mapcount>N, pfn=N")


def comparison(term: str) -> Test | None:
    number_form = r"0x[0-9a-f]{1,16}|[0-9]{1,20}"
    match = re.fullmatch(rf"(mapcount|pfn)\s*(>=|<=|!=|=|>|<)\s*({number_form})", term)
    if match is None:
        return None
    column, sign = match[1], COMPARISONS[match[2]]
    value = int(match[3], 16 if match[3].startswith("0x") else 10)
    if value >= 1 << 64:
        raise BadRequest(f"--where {column}: {match[3]} exceeds 64 bits")
    number = np.uint64(value)

    def test(pages: Pages) -> Bool:
        values = getattr(pages, column)
        if values is None:
            raise BadRequest(f"--where {column}: page frames are withheld; run as root")
        mask: Bool = sign(values, number) & IS_PRESENT[pages.state]
        return mask

    return test
