"""Write rows as a table for the screen, RESULTS.md and results.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import Of, Row

HEADINGS = ("measure", "ours", "opponent", "its", "ratio", "min-max", "limit", "met")
VERDICTS = {True: "yes", False: "NO", None: ""}

ABOUT = """\
# Results

One run of `python -m benchmarks`, which wrote this file.
[What is measured, and how](../docs/benchmarks.md).

A figure is the median of its samples; a ratio is the median of ours over theirs, round by round,
with the smallest and the largest. A limit is on the ratio, or, where it has a unit, on the worst of
our own samples. None is in milliseconds, which would be a limit on the machine.
"""


def cells(row: Row) -> tuple[str, ...]:
    """Return a row of the table, one text for each of HEADINGS."""
    if row.missing:
        return (row.measure, "", row.opponent, "", "", "", limit(row), f"- ({row.missing})")
    ratios = row.ratios
    return (
        row.measure,
        figure(row.ours, row.unit),
        row.opponent,
        figure(row.theirs, row.unit) if row.theirs else "",
        number(statistics.median(ratios)) if ratios else "",
        f"{number(min(ratios))} - {number(max(ratios))}" if ratios else "",
        limit(row),
        VERDICTS[row.met],
    )


def figure(samples: Sequence[float], unit: str) -> str:
    return f"{number(statistics.median(samples))} {unit}"


def number(value: float) -> str:
    """Return ``value`` to three significant digits, without an exponent."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.01 else f"{value:.5f}"


def limit(row: Row) -> str:
    """Return the limit in words; a ratio below one is written as a fraction."""
    if row.limit is None:
        return ""
    value = row.limit.value
    if row.limit.of is Of.RATIO:
        return f"1/{1 / value:.0f}" if value < 1 else f"{value:g}x"
    worst = f", worst {number(max(row.ours))}" if row.ours else ""
    return f"{value:g} {row.unit}{worst}"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as lines for a screen, columns aligned."""
    lines = [HEADINGS, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS) - 1)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[Row], machine: dict[str, str]) -> str:
    """Return RESULTS.md."""
    out = [ABOUT, *(f"- {name}: {value}" for name, value in machine.items()), ""]
    out += [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    out += [f"| {' | '.join(cells(row))} |" for row in rows]
    notes = dict.fromkeys(f"- {row.measure}: {row.note}." for row in rows if row.note)
    return "\n".join([*out, "", *notes]) + "\n"


def results(rows: Sequence[Row], machine: dict[str, str]) -> str:
    """Return the text of results.json, with every sample."""
    found = [
        {
            "measure": row.measure, "opponent": row.opponent, "unit": row.unit,
            "ours": row.ours, "theirs": row.theirs, "ratios": row.ratios,
            "limit": row.limit and {"value": row.limit.value, "of": row.limit.of.value},
            "met": row.met, "missing": row.missing, "note": row.note,
        }
        for row in rows
    ]
    return json.dumps({"machine": machine, "rows": found}, indent=1) + "\n"


def write(rows: Sequence[Row], machine: dict[str, str], folder: Path) -> None:
    """Write both files to ``folder``."""
    (folder / "RESULTS.md").write_text(markdown(rows, machine))
    (folder / "results.json").write_text(results(rows, machine))
