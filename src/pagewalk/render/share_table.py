"""Several processes together: the screen, the document and the rows of `share`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from pagewalk.proc.objects import Object
from pagewalk.render.amounts import kib, size
from pagewalk.render.columns import fields, titles
from pagewalk.render.document import missing, write
from pagewalk.render.terminal import (
    cells,
    following,
    printable,
    say,
    say_grid,
    say_missing,
    shorten,
    width,
)
from pagewalk.system.members import AMOUNTS, Member, Tried
from pagewalk.system.peak import Peak
from pagewalk.system.share import Child, Share

NAMED = 3  # mappings that are named beside a child
ENDING = 5  # names of objects that end with the set
PAIRED = 8  # members whose pairs are shown: as many columns fit
COLUMNS = ("rss", "pss", "uss", "freed", "name")
EVERY = (*AMOUNTS, "page_tables", "parent", "name", "program")


def text(
    found: Share, rows: Sequence[int], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write the sentences, the members ``rows``, each child beside its parent, and the pairs."""
    for sentence in (*answers(found), *of_peak(found)):
        say(sentence, out)
    print(file=out)
    say_members(found, rows, out, columns)
    if found.children and columns is None:
        print(file=out)
        say_children(found, rows, out)
    if found.both is not None and 1 < len(found.looked.members) <= PAIRED and columns is None:
        print(file=out)
        say_pairs(found, out)
    say_missing(found.withheld, out)
    if found.elsewhere:
        say(f"mapped by others too: {size(found.elsewhere)} of what they hold, by"
            f" {' or '.join(others(found))}", out)
    say_objects(found.objects, out)
    if found.looked.members:
        following(out, str(found.looked.members[0].pids[0]), "ram")


def answers(found: Share) -> Iterator[str]:
    """Yield at most three sentences: what they hold, what is freed, what one more costs."""
    looked, many = found.looked, len(found.looked.members)
    rss, pss, uss = (looked.sum_of(name) for name in ("rss", "pss", "uss"))
    who = "1 process holds" if many == 1 else f"{many} processes hold"
    if found.held is not None:
        yield (f"{who} {size(found.held)}{' together' * (many > 1)}, each page counted once; RSS"
               f" adds up to {size(rss)}, PSS to {size(pss)}, USS to {size(uss)}.")
    elif pss is not None:
        yield f"{who} between {size(pss)} and {size(rss)}: their PSS and RSS add up to that."
    else:
        yield f"{who} at most {size(rss)}: their RSS adds up to that."
    if found.freed is not None:
        tables = f", and {size(looked.page_tables)} of page tables" if looked.page_tables else ""
        yield f"Ending {'it' if many == 1 else 'all'} would free {size(found.freed)}{tables}."
    if found.one_more is not None:
        costs = [child.alone for child in found.children if child.alone is not None]
        count, (least, most) = len(costs), (min(costs), max(costs))
        of = "as the only child does" if count == 1 else (
            f"the {count} children: {size(least)} to {size(most)}")
        yield f"One more worker costs about {size(found.one_more)} ({of})."


def of_peak(found: Share) -> Iterator[str]:
    """Yield what is known of the most that they ever held."""
    peak, many = found.peak, len(found.looked.members) > 1
    known = []
    if peak.at_least is not None:
        known.append(f"at least {size(peak.at_least)}"
                     f" ({'now' if peak.at_least == found.held else 'seen'})")
    if peak.at_most is not None:
        known.append(f"at most {size(peak.at_most)} (VmHWM"
                     f"{' added up' * many}, and what it may miss)")
    if known:
        yield f"At the peak {'they' if many else 'it'} held {' and '.join(known)}."
    if peak.charged is not None:
        yield (f"The cgroup {printable(peak.group or '')} was charged {size(peak.charged)} at"
               " most, page cache and kernel memory included.")


def say_members(
    found: Share, rows: Sequence[int], out: TextIO, columns: Sequence[str] | None
) -> None:
    shown = COLUMNS if columns is None else columns
    above = titles("share")
    grid = [("PID", *(above[name] for name in shown))]
    grid += [(str(found.looked.members[row].pids[0]), *(cell(found, row, name) for name in shown))
             for row in rows]
    words = {at for at, name in enumerate(shown, 1) if name in ("name", "program")}
    say_grid(grid, words, out, room=width(out), yields=max(words, default=len(shown)))
    every = len(found.looked.members)
    if len(rows) < every:
        say(f"{every - len(rows)} more: --limit {every} shows all", out)


def say_children(found: Share, rows: Sequence[int], out: TextIO) -> None:
    listed = {found.looked.members[row].pids[0] for row in rows}
    shown = [child for child in found.children if child.pid in listed]
    grid = [("PID", "PARENT", "STILL SHARED", "COST", "DIVERGED SINCE FORK")]
    grid += [(str(child.pid), str(child.parent), kib(child.kept), kib(child.alone), diverged(child))
             for child in shown]
    whose = {diverged(child): child for child in shown}

    def fewer(cell: str, room: int) -> str:
        # Names in full rather than more of them with their middles cut out.
        texts = [diverged(whose[cell], named) for named in range(NAMED, -1, -1)
                 ] if cell in whose else [cell]
        return next((text for text in texts if cells(text) <= room), shorten(texts[-1], room))

    say_grid(grid, {4}, out, room=width(out), yields=4, shorter=fewer)


def diverged(child: Child, named: int = NAMED) -> str:
    """Return what a child does not share with its parent, and in which mappings most of it is."""
    ordered = sorted(child.diverged.items(), key=lambda pair: -pair[1])
    parts = [f"{place(name)} {kib(amount)}" for name, amount in ordered[:named]]
    if parts and len(ordered) > named:
        parts.append(f"{len(ordered) - named} more")
    total = kib(sum(child.diverged.values()))
    return f"{total}: {', '.join(parts)}" if parts else total


def place(name: str) -> str:
    return printable(os.path.basename(name)) or "anonymous"


def say_pairs(found: Share, out: TextIO) -> None:
    assert found.both is not None
    pids = [str(one.pids[0]) for one in found.looked.members]
    grid = [("SHARED", *pids)]
    grid += [(pid, *("" if row == at else kib(amount) for at, amount in enumerate(amounts)))
             for row, (pid, amounts) in enumerate(zip(pids, found.both.tolist(), strict=True))]
    say_grid(grid, {0}, out, room=width(out))


def others(found: Share) -> list[str]:
    """Return who may map what the set holds, besides its members."""
    tried, who = found.looked.tried, ["processes that are not in the set"]
    if tried.not_looked:
        who.append(f"{len(tried.not_looked)} that could not be looked at")
    if tried.gone:
        who.append(f"{len(tried.gone)} that ended meanwhile")
    if found.seen is not True:
        who.append(f"others that this /proc {'may' if found.seen is None else 'does'} not show,"
                   " such as those outside of a container")
    return who


def say_objects(objects: Iterable[Object], out: TextIO) -> None:
    """Write which objects end with the set, by name: a browser has a hundred of one."""
    sizes: dict[str, list[int]] = {}
    for one in objects:
        sizes.setdefault(one.name, []).append(one.resident)
    ordered = sorted(sizes.items(), key=lambda pair: -sum(pair[1]))
    for name, every in ordered[:ENDING]:
        many = f"{len(every)} objects called " * (len(every) > 1)
        say(f"ends with them: {many}{printable(name)}, {size(sum(every))} in RAM", out)
    if rest := [amount for _, every in ordered[ENDING:] for amount in every]:
        say(f"ends with them: {len(rest)} more objects, {size(sum(rest))} in RAM", out)


def amount(found: Share, row: int, name: str) -> Any:
    """Return one value of a member by the name of its column."""
    return values(found.looked.members[row])[name]


def values(member: Member) -> dict[str, Any]:
    return {"pid": member.pids[0], **member.amounts, "page_tables": member.page_tables,
            "name": member.name, "program": member.program, "parent": member.parent}


def cell(found: Share, row: int, name: str) -> str:
    value = amount(found, row, name)
    if name == "parent":
        return str(value)
    return printable(value) if name in ("name", "program") else kib(value)


def json(
    found: Share, rows: Sequence[int], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write all of it, the members in the order of ``rows``."""
    looked = found.looked
    write({
        "source": {"name": looked.tried.source},
        "held": found.held,
        **{f"{name}_sum": looked.sum_of(name) for name in ("rss", "pss", "uss")},
        "freed": found.freed, "page_tables": looked.page_tables,
        "one_more": found.one_more,
        "peak": of_all(found.peak),
        "elsewhere": {"bytes": found.elsewhere, "by": others(found)},
        "members": [fields("share", document(looked.members[row]), columns) for row in rows],
        "children": [{**child._asdict(), "diverged": named(child.diverged)}
                     for child in found.children],
        "pids": [one.pids[0] for one in looked.members],
        "shared": None if found.both is None else found.both.tolist(),
        "objects": [{"name": one.name, "resident": one.resident} for one in found.objects],
        **left_out(looked.tried), **missing(found.withheld), "stall_ns": looked.tried.stall_ns,
    }, out)


def of_all(peak: Peak) -> dict[str, Any]:
    """Return what the document says of the most that a set ever held."""
    return {"at_least": peak.at_least, "at_most": peak.at_most, "vm_hwm": peak.highest.added,
            "vm_hwm_off": peak.highest.off, "cgroup": peak.group, "charged": peak.charged,
            "not_told": [{"what": row.what, "why": row.why} for row in peak.withheld]}


def left_out(tried: Tried) -> dict[str, Any]:
    """Return the keys about the processes that were not walked."""
    return {"not_looked": [{"pid": pid, "why": why} for pid, why in tried.not_looked],
            "gone": list(tried.gone)}


def named(amounts: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "bytes": amount}
            for name, amount in sorted(amounts.items(), key=lambda pair: (-pair[1], pair[0]))]


def document(member: Member) -> dict[str, Any]:
    return {"pid": member.pids[0], "pids": list(member.pids),
            **{name: value for name, value in values(member).items() if name != "pid"}}


def records(
    found: Share, rows: Sequence[int], columns: Sequence[str] | None = None
) -> Iterator[list[Any]]:
    """Yield the heading and a record for each of the members ``rows``."""
    names = ["pid", *(EVERY if columns is None else columns)]
    yield names
    yield from ([values(found.looked.members[row])[name] for name in names] for row in rows)
