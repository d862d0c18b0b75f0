"""The first lines of a report on many hosts: what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pagewalk.render.amounts import human, many

Row = Mapping[str, Any]
OF_A_GROUP = {"anon": "anonymous memory", "file": "files", "shmem": "shared memory",
              "kernel": "kernel memory"}


def total(rows: Sequence[Row], name: str) -> int:
    return sum(row[name] or 0 for row in rows)


def programs(rows: Sequence[Row]) -> str:
    dark = sum(row["used"] is None for row in rows)
    if dark:
        return (f"{many(len(rows), 'program')}; RSS adds up to {human(total(rows, 'rss'))}. What"
                f" {dark} of them really hold is not known: frames were hidden.")
    used, rss = human(total(rows, "used")), human(total(rows, "rss"))
    return (f"{many(len(rows), 'program')} hold{'s' * (len(rows) == 1)} {used}, each page counted"
            f" once for each program and host; RSS adds up to {rss}.")


def mappings(rows: Sequence[Row]) -> str:
    first, dark = rows[0], sum(row["used"] is None for row in rows)
    used, rss = ("n/a" if first[name] is None else human(first[name]) for name in ("used", "rss"))
    most = "the most" if not dark else "the largest RSS" if first["used"] is None else (
        "the most of those that are known")
    unknown = f" What {dark} of {len(rows)} use is not known: frames were hidden." if dark else ""
    return (f"{first['name']} has {most}, {used} on {many(first['hosts'], 'host')}; its RSS adds"
            f" up to {rss}.{unknown}")


def libraries(rows: Sequence[Row]) -> str:
    libraries = "1 library is" if len(rows) == 1 else f"{len(rows)} libraries are"
    return (f"{libraries} in the RAM of a host more than once, which takes"
            f" {human(total(rows, 'extra'))} more than one copy of each would.")


def limits(rows: Sequence[Row]) -> str:
    first = rows[0]
    known = {name: first[name] or 0 for name in OF_A_GROUP}
    most = max(known, key=lambda name: known[name])
    full, kept = "the fullest", ""
    if first["kept_percent"] is not None:
        full = "nearest to a kill" if first["kept_percent"] >= 80 else full
        kept = f" ({first['kept_percent']} % without what could be reclaimed at once)"
    return (f"{many(len(rows), 'cgroup')} at 80 % of the limit or more; {full} is"
            f" {first['cgroup']} on {first['host']}, at {first['percent']} %{kept}, with"
            f" {human(known[most])} of {OF_A_GROUP[most]}.")


def growth(rows: Sequence[Row]) -> str:
    first = rows[0]
    time = many(first["minutes"], "minute") if first["minutes"] else "less than a minute"
    before, now = first["processes_first"], first["processes_last"]
    of = many(now, "process", "es") + (f" ({before} at first)" if now != before else "")
    return (f"{first['program']} on {first['host']} grew the most: by {human(first['grown'])} in"
            f" {time}, upwards in {first['up']} of {many(first['recordings'] - 1, 'step')}, in"
            f" {of}.")


def outliers(rows: Sequence[Row]) -> str:
    first = rows[0]
    return (f"{first['program']} on {first['host']} has {human(first['uss'])} alone; the median of"
            f" {many(first['hosts'], 'host')} is {human(first['median'])}.")


def hosts(rows: Sequence[Row]) -> str:
    wrong = [row["host"] for row in rows if row["set_back"]]
    clocks = (f" The clock of {many(len(wrong), 'host')} was set back: {', '.join(wrong[:5])}"
              f"{', ...' * (len(wrong) > 5)}." if wrong else "")
    processes = many(total(rows, "processes"), "process", "es")
    return f"{many(len(rows), 'host')} with {processes} in the latest recordings.{clocks}"


WORDS: dict[str, Callable[[Sequence[Row]], str]] = {
    "programs": programs, "mappings": mappings, "libraries": libraries, "limits": limits,
    "growth": growth, "outliers": outliers, "hosts": hosts,
}
NOTHING = {
    "libraries": "No host has more than one copy of a library in RAM; what each costs is in fleet"
                 " mappings.",
    "limits": "No cgroup is at 80 % of its limit, or none was recorded (record --machine does).",
    "growth": "Nothing has grown, or no host has more than one recording since it was booted.",
    "outliers": "No program stands out: it takes three hosts that have it, and one with more than"
                " twice the median.",
}


def answer(report: str, rows: Sequence[Row]) -> str:
    """Return what ``rows`` of a report come to, in a sentence."""
    if not rows:
        return NOTHING.get(report, "There is nothing.")
    return WORDS[report](rows)
