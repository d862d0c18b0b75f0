"""A ledger as a table: each of the kernel's numbers beside ours, and why they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from pagewalk.render.amounts import STYLE, kib_exact
from pagewalk.render.terminal import say_grid, width

if TYPE_CHECKING:
    from pagewalk.account.ledger import Line

LEDGER_COLUMNS = ("ours", "theirs", "difference")


def print_lines(ledger: Sequence[Line], columns: Sequence[str], out: TextIO) -> None:
    """Print the ledger in KiB, with each cause on a line of its own if there are differences."""
    heading = "AGAINST, in KiB" if STYLE.get().human else "AGAINST"
    rows, looks = [(heading, *(name.upper() for name in columns))], []

    def add(title: str, look: str, **amounts: int | None) -> None:
        rows.append((title, *(kib_exact(amounts[name]) if name in amounts else ""
                              for name in columns)))
        looks.append(look)

    for line in ledger:
        add(f"{line.against} = {line.ours_is}", "",
            ours=line.ours, theirs=line.theirs, difference=line.difference)
        if "difference" not in columns:
            continue
        for cause in line.causes:
            kind = "exact" if cause.exact else f"bounded by {kib_exact(cause.bound)}"
            add(f"    {cause.cause} ({kind})", "aside", difference=cause.bytes)
        if line.unexplained:
            add("    unexplained", "bad", difference=line.unexplained)
    say_grid(rows, {0}, out, looks=looks, room=width(out), keeps=16, least=(2, 1))
