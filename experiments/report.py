"""RESULTS.md and claims.json, from what was measured."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from experiments.causes import Shown
from experiments.claims import CLAIMS, Verdict, best, known
from experiments.everyone import COLUMNS, Everyone
from experiments.readers import PRINTS, READERS
from experiments.runs import Process, Result
from experiments.targets import TARGETS

KIB = 1024


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything one whole run of the experiments measured.

    about: machine and versions by name. refused: why a source does not work here. failed: why a
    target could not be measured.
    """

    about: dict[str, str]
    refused: dict[str, str]
    failed: dict[str, str]
    results: list[Result]
    everyone: Everyone
    shown: dict[str, Shown]

    @property
    def processes(self) -> list[dict[str, int]]:
        """Return every process on the machine, and those of every target's last run.

        Bytes by column, with "VmRSS" of status.
        """
        mine = [
            {**{name: known(best(p), name) for name in COLUMNS},
             "VmRSS": p.theirs["status"]["VmRSS"]}
            for result in self.results for p in result.runs[-1].processes
        ]
        return self.everyone.processes + mine


# ---- figures with their spread


def over_runs(result: Result, role: str, pick: Callable[[Process], int | None]) -> list[int]:
    """Return a figure of one process in each run that has it."""
    found = [pick(p) for run in result.runs for p in run.processes if p.role == role]
    return [value for value in found if value is not None]


def spread(values: Sequence[float], unit: float = KIB) -> str:
    """Return the median, followed by the minimum and maximum in brackets if they differ."""
    if not values:
        return "n/a"
    low, middle, high = (number(v / unit) for v in (min(values), statistics.median(values),
                                                    max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def number(value: float) -> str:
    """Return a whole number with separated thousands, or a small one to three digits."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown; the first column is left-aligned, the others right-aligned."""
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(r)} |" for r in rows)])


def ours(name: str) -> Callable[[Process], int | None]:
    return lambda process: best(process).totals[name]


def theirs(reader: str, word: str) -> Callable[[Process], int | None]:
    return lambda process: process.theirs[reader].get(word)


def roles(result: Result) -> list[str]:
    """Return the roles of a target's processes in the last run."""
    return [process.role for process in result.runs[-1].processes]


def title(result: Result, role: str) -> str:
    letter = TARGETS[result.target].letter
    alone = len(result.runs[-1].processes) == 1
    return f"({letter}) {result.target}" if alone else f"({letter}) {result.target}: {role}"


# ---- sections


OURS = ("size", "present", "rss", "not_present", "not_mapped", "pss", "uss", "swap", "zero",
        "special", "hugetlb")


def ours_table(results: Sequence[Result]) -> str:
    """Return what pagewalk says about every process, by the most informative source."""
    head = ["process", *(name.replace("_", " ") for name in OURS), "no PTE table", "no PMD table",
            "no PUD table", "page tables"]
    rows = []
    for result in results:
        for role in roles(result):
            cells = [spread(over_runs(result, role, ours(name))) for name in OURS]
            cells += [spread(over_runs(result, role, ours(f"not_mapped_{level}")))
                      for level in ("pmd", "pud", "pgd")]
            tables = over_runs(result, role, lambda process: best(process).page_tables)
            rows.append([title(result, role), *cells, spread(tables)])
    return grid(head, rows)


THEIRS = (
    ("status", "VmSize"), ("statm", "size"), ("stat", "vsize"), ("ps", "VSZ"), ("top", "VIRT"),
    ("pmap", "Kbytes"), ("status", "VmRSS"), ("statm", "resident"), ("stat", "rss"),
    ("smaps", "Rss"), ("ps", "RSS"), ("top", "RES"), ("psutil", "rss"), ("top", "SHR"),
    ("smaps", "Pss"), ("smaps_rollup", "Pss"), ("psutil", "pss"), ("smaps", "Private"),
    ("psutil", "uss"), ("status", "VmSwap"), ("smaps", "Swap"), ("status", "VmPTE"),
    ("status", "HugetlbPages"),
)


def theirs_table(results: Sequence[Result]) -> str:
    """Return what other tools say about every target's main process, one row per number."""
    head = ["reader", "its word", *(result.target for result in results)]
    rows = [
        [reader, word, *(spread(over_runs(result, roles(result)[0], theirs(reader, word)))
                         for result in results)]
        for reader, word in THEIRS
    ]
    return grid(head, rows)


def causes_table(results: Sequence[Result]) -> str:
    """Return which causes occur in the ledgers of all processes, runs and sources."""
    head = ["target", "ledgers", "lines", "equal", "unexplained", "causes, and lines they are on"]
    rows = []
    for result in results:
        walks = [walk for run in result.runs for p in run.processes for walk in p.walks.values()]
        count = sum((Counter(walk.causes) for walk in walks), Counter())
        words = ", ".join(f"{name} {count[name]}" for name in sorted(count)) or "none"
        sums = (sum(getattr(walk, name) for walk in walks) for name in ("lines", "equal", "open"))
        rows.append([result.target, str(len(walks)), *map(str, sums), words])
    return grid(head, rows)


def ledger_table(process: Process) -> str:
    """Return one whole ledger."""
    rows = []
    for line in best(process).ledger:
        causes = ", ".join(f"{cause['cause']} {exact(cause['bytes'])}" for cause in line["causes"])
        rows.append([f"{line['against']} = {line['ours_is']}", exact(line["ours"]),
                     exact(line["theirs"]), causes, exact(line["unexplained"])])
    return grid(["against", "ours", "theirs", "causes", "unexplained"], rows)


def exact(amount: int | None) -> str:
    """Return an amount in KiB, or in bytes if it is not a whole number of KiB."""
    if amount is None:
        return "n/a"
    return f"{amount} B" if amount % KIB else f"{amount // KIB:,}".replace(",", " ")


def cost_table(results: Sequence[Result]) -> str:
    """Return the time of each reader on each main process, and its longest read."""
    sources = list(results[0].runs[0].processes[0].walks)
    pairs = {f"pagewalk by {source}": (walk_ns(source), walk_held_ns(source))
             for source in sources}
    pairs |= {reader: (took_ns(reader), held_ns(reader)) for reader in READERS}
    rows = [
        [name, *(cost(*(over_runs(result, roles(result)[0], pick) for pick in pair))
                 for result in results)]
        for name, pair in pairs.items()
    ]
    return grid(["reader", *(result.target for result in results)], rows)


Pick = Callable[[Process], int | None]


def walk_ns(source: str) -> Pick:
    return lambda process: process.walks[source].walk_ns


def walk_held_ns(source: str) -> Pick:
    return lambda process: process.walks[source].held_ns


def took_ns(reader: str) -> Pick:
    return lambda process: process.took_ns[reader]


def held_ns(reader: str) -> Pick:
    return lambda process: process.held_ns.get(reader)


def cost(took: Sequence[int], held: Sequence[int]) -> str:
    """Return medians in milliseconds, "whole, longest read"."""
    return ", ".join(milliseconds(part) for part in (took, held) if part) or "n/a"


def milliseconds(samples: Sequence[int]) -> str:
    # Two digits: a third would not be reproducible.
    return f"{float(f'{statistics.median(samples) / 1e6:.2g}'):g}"


def claims_table(verdicts: Sequence[Verdict]) -> str:
    """Return every claim, and on how many targets and in how many runs it held."""
    rows = []
    for claim in CLAIMS:
        mine = [verdict for verdict in verdicts if verdict.claim == claim.name]
        if not mine:
            continue
        failed = [f"{v.target} {v.held} of {v.runs}" for v in mine if v.held < v.runs]
        held = f"{sum(v.held for v in mine)} of {sum(v.runs for v in mine)}"
        about = f"({claim.about})" if claim.about else ""
        rows.append([f"`{claim.name}`: {claim.sentence}", about,
                     ", ".join(v.target for v in mine) if len(mine) < 8 else "all", held,
                     ", ".join(failed)])
    return grid(["claim", "of", "targets", "runs in which it held", "not in"], rows)


def claims_json(verdicts: Sequence[Verdict]) -> str:
    """Return the claims as JSON, which tests/experiments reads."""
    sentences = {claim.name: claim.sentence for claim in CLAIMS}
    rows = [{**asdict(v), "sentence": sentences[v.claim]} for v in verdicts]
    return json.dumps(rows, indent=1) + "\n"


def steps_table(shown: Shown) -> str:
    """Return the rows of a cause shown at work, in pages."""
    keys = list(shown.rows[0])
    return grid(keys, [[str(row[key]) for key in keys] for row in shown.rows])


def hello_table(shown: Shown) -> str:
    """Return what each kernel says about hello world, in pages."""
    keys = ("smaps", "status", "statm", "stat")
    rows = []
    for row in shown.rows:
        for name, said in row["hello"].items():
            cells = [str(said[key]) for key in keys]
            rows.append([f"{row['release']}, {name}", *cells, str(said["smaps"] - said["status"])])
    return grid(["hello world on", *keys, "smaps less status"], rows)


def prints_table() -> str:
    """Return which file's number each program prints."""
    return grid(["program", "its word", "is", "of"],
                [[tool, word, field, f"`/proc/PID/{file}`"] for tool, word, file, field in PRINTS])


def lag_range(shown: Shown, release: str) -> tuple[int, int]:
    """Return the minimum and maximum number of pages by which VmRSS lagged behind smaps."""
    row = next(row for row in shown.rows if row["release"].startswith(release))
    return min(row["short"]["status"]), max(row["short"]["status"])
