"""What changed between two recordings: the screen, the document and the rows of `diff`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from pagewalk.account.groups import BY_KEY
from pagewalk.history.changes import CLASSES
from pagewalk.history.diff import FRAMES, Diff, Moment
from pagewalk.history.matching import Member
from pagewalk.history.tally import Most, Row
from pagewalk.model.columns import Withheld
from pagewalk.render.amounts import kib, many, size
from pagewalk.render.columns import fields, titles
from pagewalk.render.document import missing, write
from pagewalk.render.terminal import printable, say, say_grid, say_missing, width

NAMED = 3  # kinds in the first sentence, and classes beside a row
PROCESSES = "RSS"  # Diff.of, where processes were compared
CHANGES = ("change", "swap", "hugetlb")  # amounts that are written with their sign
WORDS = ("what", "kind", "addr")
TITLES = {one.key: one.title for one in CLASSES}
LENGTHS = (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 259200))  # up to how many seconds
LOST = ("dropped", "unmapped", "ended", "less")


def text(
    found: Diff, rows: Sequence[Row], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write what grew, the rows, what became of all of it, and what could not be compared."""
    for sentence in answers(found):
        say(sentence, out)
    if rows:
        print(file=out)
        say_rows(found, rows, out, columns)
    if found.whole.changed and columns is None and found.of == PROCESSES:
        print(file=out)
        say_classes(found, out)
    for sentence in remarks(found):
        say(sentence, out, look="aside")
    say_missing(worth_saying(found, columns or ()), out)


def worth_saying(found: Diff, columns: Sequence[str]) -> list[Withheld]:
    """Return what was withheld, without what matters to nothing that is on the screen.

    A page that moved to another frame takes the RAM that it took: where that is not told, it counts
    as unchanged, and the screen says so in one word.
    """
    return [row for row in found.withheld if row.what != FRAMES or FRAMES in columns]


def answers(found: Diff) -> Iterator[str]:
    """Yield at most three sentences: what grew, where most of that is, what was given back."""
    whole, after = found.whole, since(found)
    if not whole.changed:
        yield f"Nothing changed {after}: {found.of} is {size(whole.after)}."
        return
    parts = sorted(found.kinds, key=lambda row: -abs(row.change))
    changed = [row for row in parts if row.change]
    # One kind more takes no more room than to say that there is one.
    first = changed[: NAMED + 1 if len(changed) == NAMED + 1 else NAMED]
    named = [f"{signed(row.change)} {within(row)}" for row in first]
    rest = whole.change - sum(row.change for row in first)
    if rest:
        named.append(f"{signed(rest)} of other kinds")
    verb = "grew" if whole.change > 0 else "shrank"
    swap = [f"swap {signed(whole.swap)}"] if whole.swap else []
    swap += [f"hugetlb pages {signed(whole.hugetlb)}"] if whole.hugetlb else []
    begin = (f"{found.of} {verb} by {size(abs(whole.change))} {after}" if whole.change else
             f"{found.of} is {size(whole.after)}, as before; {after}" if swap or named else
             f"{found.of} is the same {after}, {size(whole.after)}")
    said = f"{', '.join([begin, *swap])}{': ' if named else ''}{', '.join(named)}."
    yield said[0].upper() + said[1:]
    if found.most is not None and whole.change * found.most.change > 0:
        most = found.most
        yield (f"The largest part is {signed(most.change)} in {printable(most.name)}{at(most)} of"
               f" {printable(most.called)} ({most.pid}).")
    if found.of == PROCESSES:
        yield gone(found)


def at(one: Row | Most) -> str:
    """Return where something is, if it is in one place: a process has many [anon]."""
    return f" at {place(one)}" if one.addr is not None else ""


def place(one: Row | Most) -> str:
    """Return a range as maps has it."""
    return "" if one.addr is None else f"{one.addr:x}-{one.end:x}"


def since(found: Diff) -> str:
    """Return what lies between the two sides, in words.

    That is time, if both are of one boot. A process that is compared with another, or with another
    run of its program, did not grow in that time: alone it is said to be another.
    """
    one, other, matched = found.before, found.after, found.matched
    one_boot = one.boot == other.boot != ""
    if len(matched.pairs) == 1 and not (matched.pairs[0].same or matched.ended or matched.began):
        pair = matched.pairs[0]
        alike = pair.before.called == pair.after.called
        apart = f", {span(other.time - one.time, 'apart')}" if one_boot else ""
        return f"between two {'runs' if alike else 'processes'}{apart}"
    if one_boot:
        return span(other.time - one.time)
    return "since the recording" if other.live else "between the two recordings"


def gone(found: Diff) -> str:
    """Return what was swapped out or given back; of two processes what the second has less of."""
    whole = found.whole.bytes
    alike = all(pair.same for pair in found.matched.pairs)
    titles = TITLES if alike else TITLES | {"less": "known by sums only"}
    said = [f"{size(whole[key])} {titles[key]}" for key in ("swapped_out", *LOST) if whole.get(key)]
    if not alike:  # nobody gave back what another process never had
        return f"Less in the second: {', '.join(said) or 'nothing'}."
    return (f"Swapped out or given back: {', '.join(said)}." if said else
            "Nothing was swapped out or given back.")


def title(row: Row) -> str:
    """Return what a row is called: a kind as people call it, anything else by its name."""
    return BY_KEY[row.what].title if row.what == row.kind else row.what


def within(row: Row) -> str:
    """Return what a kind is called in a sentence: "cache (file unmapped)" for "cache: ..."."""
    kind, _, what = title(row).partition(": ")
    return f"{kind} ({what})" if what not in ("", kind) else kind


def signed(amount: int) -> str:
    """Return an amount with its unit and its sign, for a sentence."""
    return f"+{size(amount)}" if amount > 0 else size(amount)


def span(nanoseconds: int, word: str = "in") -> str:
    """Return a time in words: in 2.5 s, or 90 min apart; going back, if it is negative."""
    seconds = abs(nanoseconds) / 1e9
    unit, length = next(((unit, length) for unit, length, most in LENGTHS if seconds < most),
                        ("days", 86400))
    number = f"{seconds / length:.1f}".removesuffix(".0")
    if nanoseconds < 0:
        return f"going back {number} {unit}"
    return f"in {number} {unit}" if word == "in" else f"{number} {unit} {word}"


def say_rows(
    found: Diff, rows: Sequence[Row], out: TextIO, columns: Sequence[str] | None
) -> None:
    """Write the rows as a table; without ``columns`` with what became of each in words."""
    above = titles("diff")
    shown = usual(found) if columns is None else list(columns)
    with_how = columns is None and found.of == PROCESSES
    grid = [["WHAT", *(above[name] for name in shown), *["HOW"] * with_how]]
    for row in rows:
        line = [printable(title(row)), *(cell(row, name, found.untold) for name in shown)]
        grid.append([*line, how(row)] if with_how else line)
    words = {0} | {at for at, name in enumerate(shown, 1) if name in WORDS}
    if with_how:
        words.add(len(shown) + 1)
    say_grid(grid, words, out, room=width(out), yields=0)
    if len(rows) < len(found.rows):
        say(f"{len(found.rows) - len(rows)} more: --limit {len(found.rows)} shows all", out)


def usual(found: Diff) -> list[str]:
    """Return the columns that are shown if none were chosen."""
    of = {"vma": ["pid", "addr"], "process": ["pid"]}.get(found.by, [])
    more = [name for name in ("swap", "hugetlb") if any(getattr(row, name) for row in found.rows)]
    return [*of, "change", "before", "after", *more]


def cell(row: Row, name: str, untold: frozenset[str]) -> str:
    value: Any = told(row, name, untold) if name in TITLES else amount(row, name)
    if name == "addr":
        return place(row)
    if name in ("pid", "kind"):
        return "" if value is None else str(value)
    return f"+{kib(value)}" if name in CHANGES and value > 0 else kib(value)


def amount(row: Row, name: str) -> Any:
    """Return what a row has in column ``name``."""
    return row.bytes.get(name, 0) if name in TITLES else getattr(row, name)


def how(row: Row) -> str:
    """Return in words what became of it, the most first."""
    parts = sorted(((amount, key) for key, amount in row.bytes.items() if key != "unchanged"),
                   reverse=True)
    more = ["..."] if len(parts) > NAMED else []
    return ", ".join([*(f"{TITLES[key]} {kib(amount)}" for amount, key in parts[:NAMED]), *more])


def say_classes(found: Diff, out: TextIO) -> None:
    """Write each class with its bytes and what it did to RSS, and the sum of that."""
    grid, whole = [["HOW", "BYTES", "OF RSS"]], found.whole
    unsure = FRAMES in found.untold and any(pair.same for pair in found.matched.pairs)
    for one in CLASSES:
        if one.key in whole.bytes:
            rss = whole.rss.get(one.key, 0)
            title = "unchanged or moved" if unsure and one.key == "unchanged" else one.title
            grid.append([title, kib(whole.bytes[one.key]), f"{'+' * (rss > 0)}{kib(rss)}"])
    grid.append(["in all", "", f"{'+' * (whole.change > 0)}{kib(whole.change)}"])
    say_grid(grid, {0}, out, room=width(out))


def remarks(found: Diff) -> Iterator[str]:
    """Yield what was compared with what, where that is not plain."""
    one, other, matched = found.before, found.after, found.matched
    different = [pair for pair in matched.pairs if not pair.same]
    for pair in different[:NAMED]:
        yield (f"compared: {named(pair.before)} with {named(pair.after)}: not the same process,"
               " so mappings of files by place in the file, the rest as sums")
    if len(different) > NAMED:
        yield f"compared likewise: {many(len(different) - NAMED, 'other process', 'es')}"
    if one.host != other.host:
        yield f"recorded on two hosts: {printable(one.host)} and {printable(other.host)}"
    elif one.boot != other.boot:
        yield "the machine was started again in between"
    if one.kernel != other.kernel:
        yield f"two kernels: {printable(one.kernel)} and {printable(other.kernel)}"
    for members, words in ((matched.ended, "only in the first"), (matched.began,
                                                                  "only in the second")):
        if members:
            more = f" and {len(members) - NAMED} more" if len(members) > NAMED else ""
            yield f"{words}: {', '.join(map(named, members[:NAMED]))}{more}"
    if found.unexplained:
        yield f"unexplained: {signed(found.unexplained)}"


def named(member: Member) -> str:
    return f"{printable(member.called)} ({member.pid})"


def json(
    found: Diff, rows: Sequence[Row], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write all of it, with ``rows``."""
    matched = found.matched
    write({
        "before": moment(found.before), "after": moment(found.after),
        "compared": [{"before": pair.before.pid, "after": pair.after.pid,
                      "name": pair.after.called, "same": pair.same} for pair in matched.pairs],
        "ended": [member(one) for one in matched.ended],
        "began": [member(one) for one in matched.began],
        "of": found.of, "totals": record(found.whole, found.untold), "growth": found.growth,
        "unexplained": found.unexplained,
        "kinds": [record(row, found.untold) for row in found.kinds],
        "by": found.by, "rows": [fields("diff", record(row, found.untold), columns)
                                    for row in rows],
        **missing(found.withheld),
    }, out)


def told(row: Row, key: str, untold: frozenset[str]) -> int | None:
    # Of several processes some may tell it: what they say is less than all of it.
    return None if key in untold else row.bytes.get(key, 0)


def moment(one: Moment) -> dict[str, Any]:
    return {"recording": None if one.live else one.what, "time": one.time, "host": one.host,
            "boot": one.boot, "kernel": one.kernel, "physical": one.physical}


def member(one: Member) -> dict[str, Any]:
    return {"pid": one.pid, "name": one.called}


def record(row: Row, untold: frozenset[str]) -> dict[str, Any]:
    """Return a row as an object: an amount for each class, None if ``untold``; and ``of_rss``."""
    return {"what": row.what, "kind": row.kind, "pid": row.pid,
            "addr": None if row.addr is None else f"{row.addr:#x}",
            "end": None if row.end is None else f"{row.end:#x}",
            **{name: getattr(row, name) for name in ("change", "before", "after", "swap",
                                                     "hugetlb")},
            **{key: told(row, key, untold) for key in TITLES}, "of_rss": row.rss}


def records(
    found: Diff, rows: Sequence[Row], columns: Sequence[str] | None
) -> Iterator[list[Any]]:
    """Yield the lines of CSV, the heading first."""
    names = [name for name in titles("diff") if name != "what"] if columns is None else [*columns]
    yield ["what", *names]
    for row in rows:
        values = record(row, found.untold)
        yield [values["what"], *(values[name] for name in names)]
