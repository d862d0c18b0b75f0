"""Fill in template.md with the measurements, to make RESULTS.md."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from experiments import report
from experiments.claims import CLAIMS, Verdict, best, known
from experiments.report import Measured, grid, over_runs, spread, theirs
from experiments.runs import Process, Result
from experiments.steps import PAGE
from experiments.targets import TARGETS

TEMPLATE = Path(__file__).with_name("template.md")
NOT_MEASURED = "(not measured in this run)"
# What the report printed, in KiB: (target, size, RSS, smaps' Rss, how far it says it was off).
REPORT = (("hello", "4 204", "1 212", "1 204", "2 pages"),
          ("top", "29 184", "3 240", "not told", "1 page"))


class Fields(dict[str, str]):
    """The template's fields by name; fields that were not measured say so."""

    def __missing__(self, _name: str) -> str:
        return NOT_MEASURED


def write_up(measured: Measured, verdicts: Sequence[Verdict]) -> str:
    """Return RESULTS.md."""
    fields = Fields()
    for part in (head, observations, shown, tables):
        fields |= part(measured)
    for number in range(1, 6):
        fields[f"broken_{number}"] = broken(verdicts, number)
    fields["claims"] = report.claims_table(verdicts)
    text = TEMPLATE.read_text().format_map(fields)
    return "\n\n".join(refilled(part) for part in re.split(r"\n{2,}", text.strip())) + "\n"


def refilled(part: str) -> str:
    """Return a paragraph wrapped again, because figures are not as wide as their names."""
    if part.startswith(("#", "|", "- ", "!")):
        return part
    return textwrap.fill(part, 100, break_long_words=False, break_on_hyphens=False)


def broken(verdicts: Sequence[Verdict], number: int) -> str:
    """Return a warning if a claim that an observation depends on did not hold."""
    about = {claim.name: claim.about for claim in CLAIMS}
    names = [f"`{v.claim}` ({v.target})" for v in verdicts
             if about[v.claim] == number and v.held < v.runs]
    return f"**In this run these claims did not hold: {', '.join(names)}.**" if names else ""


def head(measured: Measured) -> dict[str, str]:
    """Return what was measured, and on which machine."""
    about = [f"- {name}: {value}" for name, value in measured.about.items()]
    about += [f"- no source {name} here: {why.partition(' is not available: ')[2] or why}"
              for name, why in measured.refused.items()]
    about += [f"- `{name}` could not be measured: {why}" for name, why in measured.failed.items()]
    if restless := [r.target for r in measured.results if not all(run.quiet for run in r.runs)]:
        about.append(f"- not quiet when read: {', '.join(restless)}")
    runs = max(len(result.runs) for result in measured.results)
    measured_names = {result.target for result in measured.results}
    return {
        "runs": {1: "once"}.get(runs, f"{runs} times"),
        "about": "\n".join(about),
        "targets": "\n".join(f"- ({t.letter}) `{name}`: {t.title}" for name, t in TARGETS.items()
                             if name in measured_names),
        "reports_figures": reports_figures(measured),
    }


def find(measured: Measured, name: str) -> Result | None:
    return next((result for result in measured.results if result.target == name), None)


def reports_figures(measured: Measured) -> str:
    """Return the report's figures, and ours for the same targets."""
    rows = []
    for name, size, rss, smaps, off in REPORT:
        if (found := find(measured, name)) is None:
            continue
        role = report.roles(found)[0]
        above = over_runs(found, role, present_above_smaps)
        rows.append([f"{name}, the report", size, rss, smaps, off])
        rows.append([f"{name}, here", *(spread(over_runs(found, role, pick)) for pick in
                                        (report.ours("size"), report.ours("rss"),
                                         theirs("smaps", "Rss"))),
                     f"RSS 0 pages, present {spread(above, PAGE)}"])
    return grid(["target", "size", "RSS", "smaps Rss", "off by"], rows)


def present_above_smaps(process: Process) -> int:
    return known(best(process), "present") - process.theirs["smaps"]["Rss"]


def observations(measured: Measured) -> dict[str, str]:
    """Return the figures that the five observations quote."""
    rows = measured.processes
    shared = [1 - row["uss"] / row["rss"] for row in rows]
    small = [row["not_mapped"] for row in rows if row["size"] < 16 << 20]
    fields = {
        "count": str(len(rows)),
        "moved": str(measured.everyone.moved),
        "least_shared": f"{100 * min(shared):.0f} %",
        "most_shared": f"{100 * max(shared):.0f} %",
        "differ": str(sum(row["rss"] != row["VmRSS"] for row in rows) or "none"),
        "extra": extra(rows),
        "small": str(len(small)),
        "small_none": str(sum(value == 0 for value in small)),
        "small_most": spread([max(small)]),
        "browsers": browsers(measured),
    }
    if reserved := find(measured, "reservation"):
        walk = best(reserved.runs[-1].processes[0])
        fields |= {
            "reserved_tables": spread([walk.page_tables or 0]),
            "reserved_rss": spread([known(walk, "rss")]),
        }
    return fields


def extra(rows: Sequence[dict[str, int]]) -> str:
    """Return by how many pages present exceeds RSS, and in how many processes."""
    above = [(row["present"] - row["rss"]) // PAGE for row in rows]
    words = [f"{n} page{'s' * (n != 1)} in {above.count(n)}" for n in range(4)]
    return f"{', '.join(words)}, and more in {sum(n > 3 for n in above)}"


def browsers(measured: Measured) -> str:
    """Return how much of what browsers have not mapped is memory without access rights."""
    lines = []
    for name in ("firefox", "chromium"):
        if (found := find(measured, name)) is None:
            continue
        processes = found.runs[-1].processes
        total = sum(known(best(p), "not_mapped") for p in processes)
        barred = sum(map(barred_bytes, processes))
        lines += [f"Of the {spread([total])} KiB that {name.title()}'s {len(processes)} processes"
                  f" have not mapped, {100 * barred / total:.1f} % are anonymous memory without any"
                  " right (`---p`).", "",
                  f"![Not mapped in {name.title()}](figures/{name}.svg)", ""]
    return "\n".join(lines).rstrip() or NOT_MEASURED


def barred_bytes(process: Process) -> int:
    # Not mapped, in anonymous VMAs without access rights.
    groups = best(process).groups
    return sum(g.get("not_mapped") or 0 for g in groups if not g["name"] and g["perms"] == "---p")


def shown(measured: Measured) -> dict[str, str]:
    """Return the causes at work."""
    fields = {}
    for name, cause in measured.shown.items():
        if name == "counter_batching":
            low, high = report.lag_range(cause, "6.1.")
            fields["lag_old"] = f"{low} to {high}"
            fields["hello_by_kernel"] = report.hello_table(cause)
        else:
            sentence = f"{cause.shows[0].upper()}{cause.shows[1:]}."
            fields[name] = f"{sentence}\n\n{report.steps_table(cause)}"
    return fields


def tables(measured: Measured) -> dict[str, str]:
    """Return the large tables."""
    fields = {
        "ours": report.ours_table(measured.results),
        "theirs": report.theirs_table(measured.results),
        "prints": report.prints_table(),
        "ledgers": report.causes_table(measured.results),
        "costs": report.cost_table(measured.results),
    }
    for name in ("top", "read-only"):
        if found := find(measured, name):
            process = found.runs[-1].processes[0]
            fields[f"ledger_{name.replace('-', '_')}"] = report.ledger_table(process)
    return fields
