"""Rounds of the tests in other kernels: what one came to, the record of the last, the table of all.

`python -m vmtest test --record` keeps the last round of each kernel in results.json, and writes the
table of kernels in docs/support.md from it; `python -m vmtest support` writes the table alone.

A round may be run in parts. The folder of a round has a folder for each part, 1, 2, ..., with the
file that told.py wrote in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from vmtest.kernels import KERNELS, Kernel

RESULTS = Path(__file__).parent / "results.json"
SUPPORT = Path(__file__).parents[1] / "docs" / "support.md"
HEADING = "| kernel | Debian suite | levels | booted with | all live tests | short round |"
NAME = "results.jsonl"  # of the file that told.py writes
# How much of a round was run, and the column of the table that shows it.
SIZES = ("whole", "short")
Record = dict[str, dict[str, "Round"]]  # by kernel's name and by size


class Round(NamedTuple):
    """What the tests in one kernel came to.

    release: uname's. day: in ISO form. collected: how many tests there were to run. failed: their
    ids. stopped: why it ended before its end, or failed although no test did; else empty. commits:
    of the checkout, one for each part of the round. cpus: of the guest.
    """

    release: str
    day: str
    collected: int
    passed: int
    skipped: int
    failed: tuple[str, ...]
    stopped: str
    commits: tuple[str, ...] = ()
    cpus: int = 2

    @property
    def ran(self) -> int:
        """Return how many tests ended."""
        return self.passed + self.skipped + len(self.failed)

    @property
    def complete(self) -> bool:
        """Return whether each test was run to its end."""
        return not self.stopped and 0 < self.collected == self.ran

    def __str__(self) -> str:
        """Say it in one line."""
        parts = [f"{self.passed} passed", f"{self.skipped} skipped" if self.skipped else "",
                 f"{len(self.failed)} failed" if self.failed else ""]
        text = ", ".join(filter(None, parts))
        if len(self.commits) > 1:
            text += f"; in {len(self.commits)} parts, on {', '.join(dict.fromkeys(self.commits))}"
        if self.cpus == 1:
            text += "; with one CPU"
        if self.complete:
            return text
        return f"not complete ({self.stopped}): {self.ran} of {self.collected} run, {text}"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows that told.py wrote; none if it did not come to that.

    Of a guest that was stopped the last one may be cut short.
    """
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def parts(folder: Path) -> list[Path]:
    """Return the folders of a round's parts, the first one first."""
    found = [path for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []
    return sorted(found, key=lambda path: int(path.name))


def read_parts(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a round's parts; of a test that ran in several, those of the last."""
    rows: list[dict[str, Any]] = []
    for part in parts(folder):
        more = read_rows(part / NAME)
        again = {row["test"] for row in more if "test" in row}
        rows = [row for row in rows if row.get("test") not in again] + more
    return rows


def failures(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of what failed."""
    return [row for row in rows if row.get("outcome") == "failed"]


def settled(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the outcome of each test that did not fail, neither itself nor in its clean-up."""
    failed = {row["test"] for row in failures(rows)}
    return {row["test"]: row["outcome"] for row in rows if row.get("test") not in {None, *failed}}


def count(rows: Sequence[dict[str, Any]], stopped: str) -> Round:
    """Return the Round of which told.py wrote ``rows``; ``stopped`` as in Round.

    Only tests that the last part had to run are counted: others have gone since.
    """
    heads = [row for row in rows if "collected" in row]
    last = heads[-1] if heads else {"collected": [], "release": "unknown"}
    mine = [row for row in rows if row.get("test") in set(last["collected"])]
    outcomes = list(settled(mine).values())
    return Round(
        last["release"], date.today().isoformat(), len(last["collected"]),
        outcomes.count("passed"), outcomes.count("skipped"),
        tuple(sorted({row["test"] for row in failures(mine)})), stopped,
        tuple(head["commit"] for head in heads), last.get("cpus", 2),
    )


def load(path: Path = RESULTS) -> Record:
    """Read the record."""
    return {
        kernel: {
            size: Round(**{name: tuple(value) if isinstance(value, list) else value
                           for name, value in fields.items()})
            for size, fields in rounds.items()
        }
        for kernel, rounds in json.loads(path.read_text()).items()
    }


def save(record: Record, path: Path = RESULTS) -> None:
    """Write the record."""
    plain = {
        kernel: {size: round_._asdict() for size, round_ in rounds.items()}
        for kernel, rounds in record.items()
    }
    path.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")


def table(record: Record) -> str:
    """Return the table of kernels in Markdown."""
    lines = [HEADING, "|---" * 6 + "|"]
    for kernel in KERNELS.values():
        rounds = record.get(kernel.name, {})
        lines.append(row(
            kernel.name, kernel.suite, str(kernel.levels), options(kernel),
            *(cell(rounds.get(size)) for size in SIZES),
        ))
    return "\n".join(lines) + "\n"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def options(kernel: Kernel) -> str:
    return f"`{' '.join(kernel.cmdline)}`" if kernel.cmdline else ""


def cell(round_: Round | None) -> str:
    return "not run" if round_ is None else f"{round_.release}, {round_.day}: {round_}"


def with_table(page: str, record: Record) -> str:
    """Return ``page`` with the table of ``record`` in place of the one it has."""
    before, _, rest = page.partition(HEADING)
    _, _, after = rest.partition("\n\n")
    return f"{before}{table(record)}\n{after}"


def write_support(record: Record) -> None:
    """Write the table into docs/support.md."""
    SUPPORT.write_text(with_table(SUPPORT.read_text(), record))
