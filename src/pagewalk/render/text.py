"""Plain text for people: tables that fit the terminal, coloured only on a terminal.

Amounts are in KiB, as in the tools that people compare with; the other formats have exact bytes.

There is a function for each screen; its table and its sentences are made in other modules. The
screens share so much (whose memory it is, totals, the ledger, what was withheld) that they are
together here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.account.ledger import SHORT, WHY, Line, beyond_rss
from pagewalk.account.table import Table
from pagewalk.render.amounts import STYLE, kib_exact, size, when
from pagewalk.render.later import later
from pagewalk.render.ledger_table import LEDGER_COLUMNS, print_lines
from pagewalk.render.terminal import (
    NARROWEST,
    cells,
    chart,
    following,
    paint,
    printable,
    say,
    say_grid,
    say_missing,
    shorten,
    width,
)
from pagewalk.render.vma_table import KERNELS, VmaTable, total, vma_table
from pagewalk.walking.walk import Walk

# Each view imports what it alone needs: a command should not wait for the imports of others.
if TYPE_CHECKING:
    from pagewalk.account.groups import Group
    from pagewalk.heap.heap import Heap
    from pagewalk.model.columns import Pages
    from pagewalk.proc.counters import Theirs
    from pagewalk.sources.outcome import Who
    from pagewalk.translate.translation import Translation

TWO_COLUMNS = 50  # columns of a terminal that the totals need side by side
MAPS_COLUMNS = ("size", "present", "rss", "not_present", "not_mapped", "swap", "pss", "uss", "anon",
                "file", "shmem", "zero", "special", "hugetlb")
NAMED = 3  # objects that are held but not mapped
ENDS = {True: " (freed on exit)", False: "", None: " (freed on exit: n/a)"}


# ---- show


def show(
    table: Table, ledger: Sequence[Line], groups: Sequence[Group], out: TextIO,
    columns: Sequence[str] | None = None,
) -> None:
    """Write one screen: sentences, what it is, totals, the short ledger, what was withheld."""
    from pagewalk.render import group_table as words

    walk = table.walk
    room = width(out) or 100
    print(paint(out, "main", process_line(walk, room)), file=out)
    say(source_line(table), out)
    print(file=out)
    for sentence in words.answers(table, groups):
        say(sentence, out)
    print(file=out)
    shown = words.COLUMNS if columns is None else columns
    say_groups(words.rows(table, groups, shown, room, chart(out)), out)
    print(file=out)
    totals(table, out)
    held(table, out)
    print(file=out)
    compared(table, [row for row in ledger if row.against in SHORT], out)
    say_missing(table.outcome.withheld, out)
    following(out, *(f"{command} {walk.pid}" for command in ("maps", "heap", "explain")))


def say_groups(rows: Sequence[Sequence[str]], out: TextIO) -> None:
    # The bars, if any, are the second column; the names are the last one.
    last = len(rows[0]) - 1
    left = {last, *([1] if rows[0][1:2] == ("SHARE",) else ())}
    say_grid(rows, left, out, room=width(out), yields=last)


def process_line(found: Walk[Any] | Translation | Who, room: int) -> str:
    named = f"process {found.pid} ({printable(found.name)})"
    left = room - cells(named) - 2
    exe = f"  {shorten(printable(found.exe), left)}" if found.exe and left >= NARROWEST else ""
    return shorten(named + exe, room)


def source_line(table: Table) -> str:
    walk, stall = table.walk, table.outcome.stall
    recorded = "" if walk.origin is None else (
        f"recorded on {printable(walk.origin.host)} at {when(walk.origin.time)}; ")
    return (
        f"{recorded}read by {walk.source}, {walk.facts.architecture},"
        f" {walk.facts.page_size >> 10} KiB pages;"
        f" longest read {stall.longest_ns / 1e6:.2f} ms ({stall.where or 'none'}),"
        f" budget {stall.budget_ns / 1e6:g} ms"
    )


def totals(table: Table, out: TextIO) -> None:
    left = ("size", "present", "rss", "not_present", "not_mapped", "swap", "pss", "uss", "distinct")
    right = ("anon", "file", "shmem", "zero", "special", "hugetlb", "ksm", "locked", "freed")
    unit = "" if STYLE.get().human else "KiB"
    halves = [[("  " + label(name), total(table, name)) for name in names]
              for names in (left, right)]
    room = width(out)
    if room is not None and room < TWO_COLUMNS:
        say_grid([("TOTALS", unit), *halves[0], *halves[1]], {0}, out, room=room)
    else:
        pairs = [(*one, f"  {name}", amount)
                 for one, (name, amount) in zip(*halves, strict=True)]
        say_grid([("TOTALS", unit, "", unit), *pairs], {0, 2}, out, room=room)
    marked(table, (*left, *right), out)
    lazyfree(table, out)


def lazyfree(table: Table, out: TextIO) -> None:
    """Write how much of anon is lazyfree and what that means; write nothing if none is."""
    amount = table.totals.get("lazyfree")
    if amount:
        say(f"lazyfree: {size(amount)} of anon were released with MADV_FREE and not written to"
            " since: they count in RSS until memory runs short, then they are dropped", out)


def held(table: Table, out: TextIO) -> None:
    """Write what the process holds but does not map, by name; write nothing if there is none."""
    rows = [row for row in table.holdings or () if row.unmapped]
    if not rows:
        return
    named = [f"{size(row.unmapped)} of {printable(row.name)}{ENDS[row.ends]}"
             for row in rows[:NAMED]]
    if len(rows) > NAMED:
        named.append(f"and {len(rows) - NAMED} more")
    amount = f"{size(sum(row.unmapped for row in rows))}: " if len(rows) > 1 else ""
    least = "" if table.unmapped is not None else "at least "
    say(f"held but not mapped: {least}{amount}{', '.join(named)}", out)


def label(name: str) -> str:
    # "not mapped" would contradict maps, which lists the VMA.
    return "no page table" if name == "not_mapped" else name.replace("_", " ")


def marked(table: Table, shown: Sequence[str], out: TextIO) -> None:
    if set(shown) & set(table.from_kernel):
        say(f"{KERNELS} the kernel's own figure from smaps_rollup, not counted by pagewalk", out)


# ---- maps


def groups(
    table: Table, found: Sequence[Group], out: TextIO, columns: Sequence[str] | None = None,
) -> None:
    """Write a line for each group, and the totals that they add up to."""
    from pagewalk.render import group_table as words

    chosen = words.COLUMNS if columns is None else columns
    say_groups(words.rows(table, found, chosen, width(out), chart(out)), out)
    marked(table, chosen, out)
    if any(table.totals.get(name, 0) is None for name in chosen):
        say_missing(table.outcome.withheld, out)
    following(out, f"maps {table.walk.pid} --sort rss", f"heap {table.walk.pid}")


def maps(
    table: Table, rows: list[int], out: TextIO, columns: Sequence[str] | None = None, *,
    everything: bool = False,
) -> None:
    """Write the VMAs ``rows`` with their amounts; a narrow terminal shows the columns that fit.

    With ``everything`` no column is hidden, the fields of smaps that are not amounts follow, and
    VmFlags are printed after the name.
    """
    room = None if everything else width(out)
    wanted = MAPS_COLUMNS if columns is None else columns
    found = vma_table(table, rows, [name for name in wanted if name != "vm_flags"], room, "NAME",
                      foot=True, flags=everything or "vm_flags" in wanted, fields=everything)
    print_maps(found, out)
    marked(table, found.shown, out)
    if "freed" in (columns or ()):  # its total includes what no VMA maps
        held(table, out)
    if everything or any(table.columns.get(name, ()) is None or table.totals.get(name, 0) is None
                         for name in columns or ()):
        say_missing(table.outcome.withheld, out)
    pages_of = f"pages {table.walk.pid} {largest(table, rows)}".rstrip()
    following(out, f"maps {table.walk.pid} --by kind", pages_of)


def largest(table: Table, rows: list[int]) -> str:
    # The option that chooses the one of `rows` with the most pages. A name may be anything: it is
    # only used if no shell and no person could misread it.
    present = table.columns["present"]
    if not rows or present is None:
        return ""
    row = max(rows, key=lambda row: int(present[row]))
    name = os.path.basename(table.vmas.name[row]).strip("[]") or "anon"
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
        return f"--vma {name}"
    return f"--range {table.vmas.start[row]:x}-{table.vmas.end[row]:x}"


def print_maps(found: VmaTable, out: TextIO) -> None:
    out.write("\n".join([paint(out, "aside", found.lines[0]), *found.lines[1:], ""]))
    if found.left_out:
        say(f"hidden, terminal too narrow: {', '.join(found.left_out)}", out)


# ---- pages


def pages(
    batches: Iterable[Pages], walk: Walk[Pages], out: TextIO, columns: Sequence[str] | None = None,
) -> None:
    """Write one line per page, huge page or range without pages, or that there is none."""
    from pagewalk.render import page_table as words
    from pagewalk.render.columns import titles

    wanted = words.shown(columns)
    names, some = words.fit(wanted, width(out)), 0
    print(paint(out, "aside", words.heading(names)), file=out)
    for batch in batches:
        some = some or int(batch.addr[0])
        lines = words.page_lines(batch, walk.facts.page_size, names)
        out.write(lines.decode(errors="surrogateescape"))
    if not some:
        print("none", file=out)
    if hidden := [titles("pages")[name] for name in wanted if name not in names]:
        say(f"hidden, terminal too narrow: {', '.join(hidden)}", out)
    following(out, f"vtop {walk.pid} {some:#x}" if some else f"maps {walk.pid}")


# ---- explain


def explain(
    table: Table, ledger: Sequence[Line], theirs: Theirs, out: TextIO,
    columns: Sequence[str] = LEDGER_COLUMNS,
) -> None:
    """Write every line of the ledger, then explain each cause that occurs."""
    walk = table.walk
    say(f"process {walk.pid} ({printable(walk.name)}): ours - theirs = named causes + unexplained",
        out, look="main")
    say(source_line(table), out)
    print(file=out)
    compared(table, ledger, out, columns)
    say(f"distinct frames {size(table.totals['distinct'])}, freed on exit"
        f" {size(table.totals['freed'])}", out)
    held(table, out)
    causes = [*(cause for row in ledger for cause in row.causes), *beyond_rss(table)]
    used = {cause.cause for cause in causes}
    if used:
        print(file=out)
    for cause in sorted(used):
        say(f"{cause}: {WHY[cause]}", out)
    lazyfree(table, out)
    for reason in theirs.not_read:
        say(f"not compared: {reason}", out)
    say_missing(table.outcome.withheld, out)
    following(out, f"{walk.pid}", f"maps {walk.pid} --sort rss")


def compared(
    table: Table, ledger: Sequence[Line], out: TextIO, columns: Sequence[str] = LEDGER_COLUMNS
) -> None:
    """Write the ledger, the numbers of the kernel that have none of ours, and present - rss."""
    print_lines([row for row in ledger if row.ours is not None], columns, out)
    alone = [f"{row.against} {kib_exact(row.theirs)}" for row in ledger if row.ours is None]
    if alone:
        say(f"not compared, our number is withheld: {', '.join(alone)}", out)
    parts = beyond_rss(table)
    if parts:
        listed = ", ".join(f"{part.cause} {kib_exact(part.bytes)}" for part in parts)
        more = sum(part.bytes for part in parts)
        sign = "-" if more < 0 else "+"
        say(f"present = rss {sign} {kib_exact(abs(more))}: {listed}", out)


# ---- vtop


def vtop(found: Translation, out: TextIO, *, legend: bool = False) -> None:
    """Write one address's walk through the tables, what it leads to, and what that means.

    With ``legend``, explain every bit that is set.
    """
    from pagewalk.render import vtop_words as words

    print(process_line(found, width(out) or 100), file=out)
    say(printable(words.answer(found)), out, look="main")
    say(words.reading(found), out)
    print(file=out)
    say_grid(words.cut_address(found), set(range(9)), out)
    print(file=out)
    head, *lines = words.levels(found)
    print(paint(out, "aside", head), file=out)
    for step, line in zip(found.trace.steps, lines, strict=True):  # two lines for each
        before, word, after = line.partition(words.raw(step))
        if words.leads_on(step):  # ten hexadecimal digits, bits 51 to 12, are a frame
            word = word[:5] + paint(out, "main", word[5:15]) + word[15:]
        print(before + word + after, file=out)
        say(f"       {words.says(step)}", out, " " * 9)
    print(file=out)
    for title, text in words.facts(found):
        say(f"{title:<9}{printable(text)}", out, " " * 9)
    for sentence in found.remarks:
        say(f"-> {printable(sentence)}", out, "   ")
    for name, meaning in words.legend(found) if legend else ():
        say(f"{name:<19}{meaning}", out, " " * 19)
    page = found.trace.addr - found.trace.offset
    part = f"pages {found.pid} --range {page:x}-{page + found.trace.last.size:x}"
    following(out, part, *(() if legend else (f"vtop {found.pid} {found.trace.addr:#x} --legend",)))


# ---- heap


def heap(
    found: Heap, out: TextIO, arenas: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Write what the allocator holds: sentences, then a table by arena."""
    from pagewalk.render import heap_words as words
    from pagewalk.render.runtime_words import go_rows

    print(paint(out, "main", process_line(found.who, width(out) or 100)), file=out)
    say(words.reading(found), out)
    print(file=out)
    for sentence in words.answers(found):
        say(sentence, out)
    if found.arenas:
        print(file=out)
        say_grid(words.rows(found, arenas, columns), {0}, out, room=width(out))
    if found.go and not found.go.why:
        print(file=out)
        say_grid(go_rows(found.go), {0}, out, room=width(out))
    for sentence in words.besides(found):
        say(sentence, out)
    say_missing(found.outcome.withheld, out)
    pid = found.who.pid
    by_arena = (f"heap {pid} --sort free",) if arenas is None and len(found.arenas) > 2 else ()
    following(out, *by_arena, f"maps {pid} --by kind")


# The largest amount that a view shows, for those that can show them in K, M and G.
LARGEST: dict[str, Callable[..., int]] = {
    "show": lambda table, *_: table.totals["size"] or 0,
    "groups": lambda table, *_: table.totals["size"] or 0,
    "maps": lambda table, *_: table.totals["size"] or 0,
    "heap": lambda found: found.anonymous,
    "ram": lambda found: found.total or 0,
    "trigger": lambda found, _: found.trigger.now.numbers.current or 0,
    "group": lambda found, *_: found.numbers[-1].current or 0,
    "cgroups": lambda table, *_: int(table.amounts.usage.max(initial=0)),
    "cache": lambda found, _: sum(one.size or 0 for one in found.files),
    "diff": lambda found, _: max(found.whole.before, found.whole.after),
    "who": lambda _, mappers: max((one.size for one in mappers), default=0),
    "top": lambda found, _: found.looked.sum_of("rss") or 0,
    "share": lambda found, _: found.looked.sum_of("rss") or 0,
    "huge": lambda found, _: max(found.totals["rss"] or 0, found.totals["hugetlb"] or 0),
    "huge_of_each": lambda found, _: found.sum_of("rss") or 0,
    "run": lambda report: max((one.most or 0 for one in report.verdicts), default=0),
    "processes": lambda rows, *_: max((process.rss for process in rows), default=0),
    "overview": lambda found, _: found.ram.total or 0,
    "slab": lambda found, _: found.slabs.size(),
    "map": lambda found, facts: int(found.stretches.pages.sum()) * facts.page_size,
    "files": lambda report, _: sum(total.amounts.cached for total in report.totals.values()),
}
VIEWS: dict[str, Callable[..., None]] = {
    "show": show, "groups": groups, "maps": maps, "pages": pages, "explain": explain, "heap": heap,
    "vtop": vtop,
    "check": later("differences", "check"),
    "doctor": later("machine", "doctor"),
    "processes": later("machine", "processes"),
    "ram": later("ram_text", "ram"),
    "files": later("file_table", "text"),
    "slab": later("kernel_table", "text"),
    "map": later("ram_map", "text"),
    "group": later("group_text", "group"),
    "cgroups": later("groups_table", "text"),
    "trigger": later("trigger_table", "text"),
    "share": later("share_table", "text"),
    "top": later("top_table", "text"),
    "who": later("who_table", "text"),
    "overview": later("overview_table", "text"),
    "huge": later("huge_table", "text"),
    "huge_of_each": later("huge_table", "text_of_each"),
    "cache": later("cache_table", "text"),
    "diff": later("diff_table", "text"),
    "run": later("run_table", "text"),
}
