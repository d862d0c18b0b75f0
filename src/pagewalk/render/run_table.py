"""A command and its budgets: the screen and the document of `run`."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.history.budget import (
    NEW_WORST,
    TITLES,
    Bounds,
    Look,
    Portion,
    Watched,
    Worst,
    is_like,
)
from pagewalk.history.child import Report
from pagewalk.history.verdicts import HIGH_WATER, Verdict
from pagewalk.proc.tree import Holds
from pagewalk.render.amounts import kib, many, size, times
from pagewalk.render.terminal import beginning, printable, say, say_grid, say_missing, width

if TYPE_CHECKING:
    from pagewalk.model.columns import Withheld

SHOWN = 10  # processes of the worst moment
KNOWN = {True: "exceeded", False: "kept", None: "not known"}


def text(report: Report, out: TextIO) -> None:
    """Write which budgets were exceeded, what was seen of each, and the worst moments."""
    for sentence in answers(report):
        say(sentence, out)
    print(file=out)
    say_grid(grid(report.verdicts), {5}, out, room=width(out), yields=5)
    for look, worst in moments(report):
        print(file=out)
        say_worst(look, worst, report.seen, out)
    if report.left:
        print(file=out)
        say(f"left behind: {', '.join(f'{one.pid} {printable(one.name)}' for one in report.left)}",
            out)
    say_missing(withheld(report), out)


def answers(report: Report) -> Iterator[str]:
    """Yield at most three sentences: what was exceeded, what is not known, how it ended."""
    for one in report.exceeded[:1]:
        others = f"; {named(report.exceeded[1:])} too" if report.exceeded[1:] else ""
        assert one.at_least is not None and one.limit is not None
        beyond = (f", {size(one.at_least - one.limit)} more than {size(one.limit)}" if one.limit
                  else "; the budget allows none")
        yield (f"{TITLES[one.measure]} exceeded its budget: it reached at least"
               f" {size(one.at_least)}{moment(one)}{beyond}{others}.")
    if report.unknown:
        whose = "its budget" if len(report.unknown) == 1 else "their budgets"
        yield f"Whether {named(report.unknown)} kept {whose} is not known."
    limited = sum(one.limit is not None for one in report.verdicts)
    if limited and not report.exceeded and not report.unknown:
        yield f"No look saw more than {'the budget' if limited == 1 else 'the budgets'}."
    yield (f"{printable(report.command[0])} {ending(report)} after {seconds(report.seconds)}"
           f"{seen(report)}.")


def named(verdicts: Sequence[Verdict]) -> str:
    return " and ".join(TITLES[one.measure] for one in verdicts)


def moment(one: Verdict) -> str:
    return "" if one.at is None else f" after {seconds(one.at)}"


def ending(report: Report) -> str:
    """Return how the command ended."""
    if report.signal is None:
        return f"ended with exit code {report.code}"
    try:
        return f"was ended by {signal.Signals(report.signal).name}"
    except ValueError:
        return f"was ended by signal {report.signal}"


def seen(report: Report) -> str:
    looks = report.seen.looks
    if not looks:
        return ""
    return (f"; it was looked at {times(looks)}, at most {seconds(report.seen.gap)} apart, the last"
            f" time {seconds(report.unseen)} before the end")


def seconds(time: float) -> str:
    return f"{time:.0f} s" if time >= 100 else f"{time:.1f} s" if time >= 10 else f"{time:.3f} s"


def grid(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    """Return a heading and a row for each measure."""
    rows: list[tuple[str, ...]] = [("", "BUDGET", "PEAK, AT LEAST", "AFTER", "LAST LOOK", "")]
    for one in verdicts:
        after = ("" if one.at_least is None else HIGH_WATER if one.by == HIGH_WATER
                 else seconds(one.at or 0.0))
        rows.append((
            TITLES[one.measure].upper(), "" if one.limit is None else kib(one.limit),
            kib(one.at_least), after, span(one.last),
            "" if one.limit is None else KNOWN[one.exceeded]))
    return rows


def span(amount: Bounds | None) -> str:
    """Return an amount, or the two that it lies between."""
    if amount is None:
        return "n/a"
    low, high = kib(amount.low), kib(amount.high)
    return low if low == high else f"{low} to {high}"


def moments(report: Report) -> list[tuple[Look, list[Worst]]]:
    """Return each worst moment once, with the measures that it is the worst of."""
    found: dict[float, list[Worst]] = {}
    for worst in report.worst:
        found.setdefault(worst.look.at, []).append(worst)
    return [(rows[0].look, rows) for rows in found.values()]


def say_worst(
    look: Look, worst: Sequence[Worst], seen: Watched, out: TextIO
) -> None:
    """Write what was ``seen`` at a worst moment; with a base, what is more then than at that."""
    base = seen.base
    titles = " and ".join(TITLES[one.measure] for one in worst)
    more = ", more than when the block began" if base else ""
    say(f"{titles} after {seconds(look.at)}, in {many(len(look.holds), 'process', 'es')}{more}:",
        out)
    for sentence in higher(worst, seen):
        say(sentence, out, look="aside")
    by = "swap" if worst[0].measure == "swap" else "pss"
    holds = look.holds if base is None else more_than(look.holds, base.holds)
    rows = sorted(holds, key=lambda one: -(getattr(one, by) or 0))
    table = [("PID", "USS", "PSS", "RSS", "SWAP", "COMMAND")]
    table += [(str(one.pid), kib(one.uss), kib(one.pss), kib(one.rss), kib(one.swap),
               beginning(printable(worst[0].commands.get(one.pid) or one.name), 60))
              for one in rows[:SHOWN]]
    say_grid(table, {5}, out, room=width(out), yields=5, shorter=beginning)
    if len(rows) > SHOWN:
        say(f"{len(rows) - SHOWN} more processes: they are in --format json", out)
    if len(look.holds) > 1 and base is None:
        say(shares(look), out)
    made = worst[0].made
    if made is None:
        say("what they were made of is not known: that was looked at too late", out)
        return
    print(file=out)
    of = "made of, page by page" if base is None else "what grew"
    say(f"{of}, {seconds(made.at - look.at)} later; what several of them map counts in each:", out)
    for heading, parts in (("KIND", made.kinds), ("MAPPING", made.mappings)):
        say_grid([("USS", "PSS", "RSS", "SWAP", heading), *map(part_row, parts)], {4}, out,
                 room=width(out), yields=4)
    for why in made.missing:
        say(f"without: {printable(why)}", out)


def higher(worst: Sequence[Worst], seen: Watched) -> Iterator[str]:
    """Yield which look saw more than the worst moment that is shown, and why it is not shown."""
    for one in worst:
        peak = seen.peaks[one.measure]
        then, most = (look.amounts[one.measure].low for look in (one.look, peak))
        if most > then:
            why = (f"less than 1/{NEW_WORST} more than here, too little to look at all of it again"
                   if is_like(then, most) else
                   "what that was made of was gone when it was looked at")
            yield f"the peak of {TITLES[one.measure]}, {size(most)} after {seconds(peak.at)}: {why}"


def more_than(holds: Sequence[Holds], before: Sequence[Holds]) -> list[Holds]:
    """Return ``holds`` less what the same processes had ``before``."""
    had = {one.pid: one for one in before}
    return [one if (then := had.get(one.pid)) is None else one._replace(
        uss=less(one.uss, then.uss), pss=less(one.pss, then.pss), rss=one.rss - then.rss,
        swap=one.swap - then.swap) for one in holds]


def less(now: int | None, then: int | None) -> int | None:
    return None if now is None or then is None else now - then


def shares(look: Look) -> str:
    """Return how the USS of each process and what they share add up to the PSS of the tree."""
    found, unread = look.together, sum(bool(one.refused) for one in look.holds)
    but = f", without {many(unread, 'process', 'es')} that could not be read" if unread else ""
    return (f"together {size(found.pss)} of PSS{but}: {kib(found.alone)} that a single process has"
            f" alone (USS added up), {span(found.within)} that only processes of the tree share,"
            f" and {span(found.others)} as their part of what others map too")


def part_row(part: Portion) -> tuple[str, ...]:
    return (kib(part.uss), kib(part.pss), kib(part.rss), kib(part.swap), printable(part.name))


def withheld(report: Report) -> list[Withheld]:
    """Return what is not known, and why; partial if a budget depends on it."""
    rows = list(untold(report))
    if not rows:
        return []
    from pagewalk.model.columns import Withheld

    return [Withheld(what, why, partial) for what, why, partial in rows]


def untold(report: Report) -> Iterator[tuple[str, str, bool]]:
    for one in report.unknown:
        if one.at_least is None or one.most is None:
            continue
        if one.between:
            yield (f"whether {TITLES[one.measure]} kept its budget",
                   f"no look saw more than {size(one.most)} of it, but between two looks RSS was"
                   f" {size(one.between)} higher than any saw (VmHWM): look more often (--every)"
                   " at a program that runs for longer, or budget RSS", True)
            continue
        yield (f"whether {TITLES[one.measure]} kept its budget",
               f"it was between {size(one.at_least)} and {size(one.most)}: procfs does not tell how"
               " much several processes have in common, or with others; PSS is exact, budget that",
               True)
    partial = bool(report.unknown)
    for process, why in report.seen.refused.items():
        yield f"USS and PSS of {process}", why, partial
    if not report.seen.looks:
        yield "what it held", "it ended before it could be looked at", partial
    for why in report.not_looked:
        yield "some looks", why, partial
    if report.seen.hugetlb:
        yield ("hugetlb pages", f"USS, PSS and RSS do not count them: {size(report.seen.hugetlb)},"
               " in each process that maps them", False)


def json(report: Report, out: TextIO) -> None:
    """Write all of it."""
    from pagewalk.render.document import missing, write

    seen = report.seen
    write({
        "command": list(report.command), "exit_code": report.code, "signal": report.signal,
        "seconds": report.seconds, "every": report.every, "looks": seen.looks,
        "longest_gap": seen.gap, "longest_look": seen.longest, "unseen_end": report.unseen,
        "budgets": [budget(one) for one in report.verdicts],
        "worst": [worst(one) for one in report.worst],
        "left": [process(one, "") for one in report.left],
        "hugetlb": seen.hugetlb, **missing(withheld(report)), "stall_ns": report.stall_ns,
    }, out)


def budget(one: Verdict) -> dict[str, Any]:
    return {"measure": one.measure, "budget": one.limit, "exceeded": one.exceeded,
            "peak": {"at_least": one.at_least, "after": one.at, "by": one.by,
                     "looks_at_most": one.most},
            "last": None if one.last is None else bound(one.last)}


def bound(amount: Bounds) -> dict[str, int]:
    return {"at_least": amount.low, "at_most": amount.high}


def worst(one: Worst) -> dict[str, Any]:
    made = one.made
    return {
        "measure": one.measure, "after": one.look.at, "took": one.look.took,
        "amounts": {name: bound(amount) for name, amount in one.look.amounts.items()},
        "together": {"pss": one.look.together.pss, "alone": one.look.together.alone,
                     "within": bound(one.look.together.within),
                     "others": bound(one.look.together.others)},
        "processes": [process(held, one.commands.get(held.pid, "")) for held in one.look.holds],
        "made_of": None if made is None else {
            "after": made.at, "kinds": [part._asdict() for part in made.kinds],
            "mappings": [part._asdict() for part in made.mappings], "missing": list(made.missing)},
    }


def process(one: Holds, command: str) -> dict[str, Any]:
    return {"pid": one.pid, "parent": one.parent, "name": one.name, "command": command,
            "uss": one.uss, "pss": one.pss, "rss": one.rss, "swap": one.swap, "vm_hwm": one.peak,
            "refused": one.refused or None}
