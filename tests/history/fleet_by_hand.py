"""A data set of four hosts, made by hand: what each report must say of it is known beforehand.

Host d was booted anew, and its clock was set back; its last file is of an older schema.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pagewalk.snapshot.places import place_of
from pagewalk.snapshot.schema import KEY, VERSION
from tests.history.by_hand import Process, Run, recorded
from tests.snapshot.by_hand import PAGE

NEWEST = 1_700_000_000_000_000_000  # nanoseconds since 1970
HOUR = 3600 * 10**9
MINUTE = 60 * 10**9
MIB = 1 << 20


def at(root: Path, host: str, time: int, *processes: Process, **more: Any) -> str:
    """Write a recording of ``host``, ``time`` nanoseconds after NEWEST, and return its path."""
    path = Path(place_of(str(root), host, NEWEST + time))
    path.parent.mkdir(parents=True)
    return recorded(path, *processes, host=host, time=NEWEST + time, **more)


def web(
    pid: int, uss: int | None, rss: int, *runs: Run, lib: str = "/opt/one/libz.so.1.2"
) -> Process:
    """Return a process of the program that every host has."""
    return Process(pid, "web", runs, {"rss": rss, "uss": uss, "swap": 0}, program="/bin/web",
                   names=("", lib))


def many_hosts(root: Path) -> str:
    """Make the data set below ``root`` and return where it is."""
    # the same 20 frames of anonymous memory twice, and 10 of a library that both map
    both = Run(10, 20), Run(100, 10, "file", vma=1)
    at(root, "a", 0, web(1, MIB, 30 * PAGE, *both), web(2, MIB, 30 * PAGE, *both),
       Process(3, "db", (Run(200, 8),), {"rss": 8 * PAGE, "uss": 3 * MIB, "swap": PAGE},
               program="/bin/db"),
       group=group("/app", 90 * PAGE, 100 * PAGE))
    # two versions of a library in one host's RAM, of 10 and of 4 frames
    at(root, "b", 0, web(1, MIB, 10 * PAGE, Run(10, 10, "file", vma=1)),
       web(2, MIB, 4 * PAGE, Run(50, 4, "file", vma=1), lib="/opt/two/libz.so.1.3"),
       group=group("/cache", 95 * PAGE, 100 * PAGE, reclaimable=60 * PAGE))
    for minute, rss in ((0, 10), (30, 40), (60, 30), (90, 70)):
        at(root, "c", minute * MINUTE - 90 * MINUTE, web(1, 9 * MIB, rss * PAGE, Run(10, rss)),
           uptime=HOUR + minute * MINUTE)
    # before it was booted: this does not count for growth
    at(root, "d", -60 * MINUTE, web(1, MIB, 5 * PAGE, Run(10, 5)), uptime=99 * HOUR, boot="old")
    at(root, "d", -5 * MINUTE, web(1, MIB, 5 * PAGE, Run(10, 5)), uptime=MINUTE)
    older(at(root, "d", -10 * MINUTE, web(1, MIB, 5 * PAGE, Run(10, 5)), uptime=2 * MINUTE))
    return str(root)


def two_hosts(root: Path) -> str:
    """Make a data set of one host that shows its frames, and one that hides them."""
    pages = Run(200, 8), Run(4096, 1, "hugetlb", unit=2 * MIB)
    at(root, "a", 0, web(1, MIB, 20 * PAGE, Run(10, 20), lib="/lib/x"),
       Process(2, "db", pages, {"rss": 8 * PAGE, "uss": MIB, "swap": 0}, program="/bin/db",
               names=("[heap]", "/lib/db")))
    dark = {"rss": 5 * PAGE, "uss": None, "swap": 0}
    at(root, "b", 0, Process(1, "web", (Run(None, 5),), dark, program="/bin/web"),
       Process(2, "own", (Run(None, 3),), {**dark, "rss": 3 * PAGE}, program="/bin/own"))
    return str(root)


def group(path: str, size: int, allowed: int, reclaimable: int | None = None) -> dict[str, Any]:
    """Return the row of a cgroup."""
    return {"cgroup": [path], "name": [path[1:]], "size": [size], "allowed": [allowed],
            "reclaimable": [reclaimable], "anon": [size - PAGE], "file": [0], "shmem": [0],
            "kernel": [PAGE], "removed": [0]}


def older(path: str) -> None:
    """Take a column out of a recording, as one of an older schema lacks it."""
    file = pq.ParquetFile(path)
    groups = [file.read_row_group(at).drop_columns(["command"])
              for at in range(file.metadata.num_row_groups)]
    with pq.ParquetWriter(path, groups[0].schema) as writer:
        for one in groups:
            writer.write_table(one)
        writer.add_key_value_metadata({KEY: file.metadata.metadata[KEY.encode()].decode()})


def newer(path: str) -> None:
    """Make a recording one of a schema that is not there yet: a number of it is text."""
    file = pq.ParquetFile(path)
    groups = [file.read_row_group(at) for at in range(file.metadata.num_row_groups)]
    at = groups[0].schema.get_field_index("rss")
    groups = [one.set_column(at, "rss", one.column("rss").cast("string")) for one in groups]
    meta = json.loads(file.metadata.metadata[KEY.encode()])
    meta["schema"] = VERSION + 1
    with pq.ParquetWriter(path, groups[0].schema) as writer:
        for one in groups:
            writer.write_table(one)
        writer.add_key_value_metadata({KEY: json.dumps(meta)})


def moment(nanoseconds: int) -> datetime:
    """Return a time as engines give it: in UTC, without a zone."""
    return datetime.fromtimestamp((NEWEST + nanoseconds) // 10**9, UTC).replace(tzinfo=None)


# What each report says of it: its rows, in its order.
EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    # program, hosts, processes, rss, used, shared, uss, swap
    "programs": [
        ("/bin/web", 4, 6, 149 * PAGE, 119 * PAGE, 30 * PAGE, 14 * MIB, 0),
        ("/bin/db", 1, 1, 8 * PAGE, 8 * PAGE, 0, 3 * MIB, PAGE),
    ],
    # name, hosts, processes, mappings, rss, used, shared: by hand, only the first mapping has RSS
    "mappings": [
        ("(anonymous)", 4, 7, 7, 7 * PAGE, 103 * PAGE, -96 * PAGE),
        ("/opt/one/libz.so.1.2", 4, 5, 5, None, 20 * PAGE, None),
        ("/opt/two/libz.so.1.3", 1, 1, 1, None, 4 * PAGE, None),
        ("/lib/x", 1, 1, 1, None, 0, None),
    ],
    # library, hosts, copies, used, extra
    "libraries": [("libz", 1, 2, 14 * PAGE, 4 * PAGE)],
    # host, cgroup, name, charged, allowed, percent, reclaimable, kept_percent, anon, file, shmem,
    # kernel: what is full of what can be reclaimed comes last; of /app that is not known
    "limits": [
        ("a", "/app", "app", 90 * PAGE, 100 * PAGE, 90, None, None, 89 * PAGE, 0, 0, PAGE),
        ("b", "/cache", "cache", 95 * PAGE, 100 * PAGE, 95, 60 * PAGE, 35, 94 * PAGE, 0, 0, PAGE),
    ],
    # host, program, grown, rss_first, rss_last, rss_most, processes_first, processes_last,
    # recordings, up, minutes
    "growth": [("c", "/bin/web", 60 * PAGE, 10 * PAGE, 70 * PAGE, 70 * PAGE, 1, 1, 4, 2, 90)],
    # host, program, processes, uss, median, hosts: 2, 2, 9 and 1 MiB
    "outliers": [("c", "/bin/web", 1, 9 * MIB, 2 * MIB, 4)],
    # host, recordings, first, latest, boots, set_back, processes, rss
    "hosts": [
        ("d", 3, moment(-60 * MINUTE), moment(-5 * MINUTE), 2, 1, 1, 5 * PAGE),
        ("a", 1, moment(0), moment(0), 1, 0, 3, 68 * PAGE),
        ("b", 1, moment(0), moment(0), 1, 0, 2, 14 * PAGE),
        ("c", 4, moment(-90 * MINUTE), moment(0), 1, 0, 1, 70 * PAGE),
    ],
}
# What they say of two_hosts: what one host hides is not zero, and is no part of a difference.
OF_TWO: dict[str, list[tuple[Any, ...]]] = {
    "programs": [
        ("/bin/db", 1, 1, 8 * PAGE, 8 * PAGE + 2 * MIB, 0, MIB, 0),
        ("/bin/web", 2, 2, 25 * PAGE, None, None, None, 0),
        ("/bin/own", 1, 1, 3 * PAGE, None, None, None, 0),
    ],
    "mappings": [
        ("[heap]", 1, 1, 1, PAGE, 8 * PAGE + 2 * MIB, -7 * PAGE),
        ("/lib/db", 1, 1, 1, None, 0, None),
        ("(anonymous)", 2, 3, 3, 3 * PAGE, None, None),
        ("/lib/x", 2, 3, 3, None, None, None),
    ],
}
HIDDEN_BY = {"b": 2}  # processes of each host
