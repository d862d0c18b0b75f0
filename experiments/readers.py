"""What other tools say about a process: READERS by name, each a dict of bytes by its own words.

A reader of a file records on a Stall how long its longest read took, which bounds how long the
target's lock was held. How long a program holds it cannot be seen from outside.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import psutil

from pagewalk.proc.counters import PAGE, parse_statm, read_status
from pagewalk.proc.smaps import Smaps, read_smaps
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import Target, parse_stat

Numbers = dict[str, int]

STATUS = ("VmSize", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmSwap", "VmPTE", "HugetlbPages")
SMAPS = ("Size", "Rss", "Pss", "Swap", "Private_Clean", "Private_Dirty", "Private_Hugetlb")
# Without the user's own settings, which may change columns and units.
PLAIN = {"HOME": "/nonexistent", "LC_ALL": "C", "PATH": "/usr/bin:/bin", "TERM": "dumb"}


def status(target: Target, stall: Stall) -> Numbers:
    found = read_status(target)
    return {name: found[name] for name in STATUS if name in found}


def statm(target: Target, stall: Stall) -> Numbers:
    size, resident, shared, *_ = parse_statm(target.read("statm"))
    return {"size": size, "resident": resident, "shared": shared}


def stat(target: Target, stall: Stall) -> Numbers:
    found = parse_stat(target.read("stat"))
    return {"rss": found.rss * PAGE, "vsize": found.vsize}


def smaps(target: Target, stall: Stall) -> Numbers:
    return sums(read_smaps(target, stall))


def smaps_rollup(target: Target, stall: Stall) -> Numbers:
    return sums(read_smaps(target, stall, "smaps_rollup"))


def sums(found: Smaps) -> Numbers:
    rows = {name: int(found.columns[name].sum()) for name in SMAPS if name in found.columns}
    return {**rows, "Private": rows["Private_Clean"] + rows["Private_Dirty"]}


def pmap(target: Target, stall: Stall) -> Numbers:
    size, rss = last_line("pmap", "-x", target.pid).split()[2:4]
    return {"Kbytes": int(size) << 10, "RSS": int(rss) << 10}


def top(target: Target, stall: Stall) -> Numbers:
    words = last_line("top", "-b", "-n", 1, "-E", "k", "-e", "k", "-p", target.pid).split()
    return dict(zip(("VIRT", "RES", "SHR"), map(scaled, words[4:7]), strict=True))


def scaled(word: str) -> int:
    """Return the bytes for top's KiB; a number too wide for its column is written as 16.0t."""
    power = " mgtp".find(word[-1])
    return int(word) << 10 if power < 0 else int(float(word[:-1]) * 1024 ** (power + 1))


def ps(target: Target, stall: Stall) -> Numbers:
    size, rss = last_line("ps", "-o", "vsz=,rss=", "-p", target.pid).split()
    return {"VSZ": int(size) << 10, "RSS": int(rss) << 10}


def psutil_full(target: Target, stall: Stall) -> Numbers:
    info = psutil.Process(target.pid).memory_full_info()
    return {name: getattr(info, name) for name in ("vms", "rss", "shared", "uss", "pss", "swap")}


def last_line(*words: object) -> str:
    command = [str(word) for word in words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=PLAIN)
    return done.stdout.splitlines()[-1]


READERS: dict[str, Callable[[Target, Stall], Numbers]] = {
    "status": status,
    "statm": statm,
    "stat": stat,
    "smaps": smaps,
    "smaps_rollup": smaps_rollup,
    "pmap": pmap,
    "top": top,
    "ps": ps,
    "psutil": psutil_full,
}
# Which number in a file a program prints under which name: (program, its word, file, file's word).
PRINTS = (
    ("pmap", "Kbytes", "smaps", "Size"),
    ("pmap", "RSS", "smaps", "Rss"),
    ("top", "VIRT", "statm", "size"),
    ("top", "RES", "statm", "resident"),
    ("top", "SHR", "statm", "shared"),
    ("ps", "VSZ", "status", "VmSize"),
    ("ps", "RSS", "status", "VmRSS"),
    ("psutil", "vms", "statm", "size"),
    ("psutil", "rss", "statm", "resident"),
    ("psutil", "shared", "statm", "shared"),
    ("psutil", "pss", "smaps_rollup", "Pss"),
    ("psutil", "swap", "smaps_rollup", "Swap"),
)
