"""The screen on which two walks of a process are compared, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from pagewalk.account.check import Report
from pagewalk.render.amounts import STYLE, kib
from pagewalk.render.terminal import following, paint, say, say_grid, width


def check(
    report: Report, out: TextIO, columns: Sequence[str] | None = None, *, pid: int = 0
) -> None:
    """Write what was compared, and every page and amount on which two walks differ."""
    first, second = report.first, report.second
    say(f"{first} against {second}: {report.pages} pages and {report.fields} VMA amounts compared",
        out, look="main")
    if report.left_out:
        say(f"left out, procfs does not show their pages: {', '.join(report.left_out)}", out)
    for sentence in check_moves(report):
        say(sentence, out)
    if not report.differences:
        print(paint(out, "good", "no difference"), file=out)
        following(out, f"explain {pid}")
        return
    made = {
        "size": ("SIZE" if STYLE.get().human else "KIB", [kib(d.size) for d in report.differences]),
        "what": ("WHAT", [d.what for d in report.differences]),
        "first": (first, [d.first or "-" for d in report.differences]),
        "second": (second, [d.second or "-" for d in report.differences]),
    }
    shown = list(made) if columns is None else columns
    rows = [("ADDRESS", *(made[name][0] for name in shown))]
    rows += [(f"{d.addr:016x}", *(made[name][1][row] for name in shown))
             for row, d in enumerate(report.differences)]
    left = {0, *(at for at, name in enumerate(shown, 1) if name == "what")}
    say_grid(rows, left, out, room=width(out))
    if report.more:
        print(f"... and {report.more} more", file=out)
    following(out, *(f"vtop {pid} {d.addr:#x}" for d in report.differences[:1]))


def check_moves(report: Report) -> Iterator[str]:
    # What turned out not to be a difference, and what made it look like one.
    gone, changing = "gone when checked again", "in pages or amounts that kept changing"
    ours = "this process's pages changed"
    others = "other processes mapped or unmapped the same pages"
    for count, what, cause in (
        (report.moved - report.moved_by_others, gone, ours),
        (report.moved_by_others, gone, others),
        (report.unsteady - report.unsteady_by_others, changing, ours),
        (report.unsteady_by_others, changing, others),
    ):
        if count:
            differences = "1 difference was" if count == 1 else f"{count} differences were"
            yield f"{differences} {what}: {cause} in the meantime"
