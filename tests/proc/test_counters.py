"""status, statm and stat, on recorded text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.counters import in_bytes, parse_statm
from pagewalk.proc.target import parse_stat


def test_status_keeps_the_kb_lines_in_bytes() -> None:
    text = b"Name:\tx kB y\nThreads:\t2\nVmRSS:\t    1532 kB\nVmSwap:\t       0 kB\n"
    assert in_bytes(text) == {"VmRSS": 1532 << 10, "VmSwap": 0}


@pytest.mark.parametrize("name", [b"5 kB", b"\rVmRSS:\t0 kB", b"a\x0bVmRSS:\t0 kB", b"\xff"])
def test_a_process_cannot_choose_its_amounts_by_its_name(name: bytes) -> None:
    # The kernel escapes \\n and \\\\ in Name, and nothing else (proc_task_name).
    assert in_bytes(b"Name:\t%b\nVmRSS:\t    1532 kB\n" % name) == {"VmRSS": 1532 << 10}


def test_statm_is_in_bytes() -> None:
    assert parse_statm(b"716 383 371 5 0 85 0\n")[:2] == [716 * 4096, 383 * 4096]


# The kernel ends each line with a newline: text without one was cut off, and so may be a number.
@pytest.mark.parametrize("parse", [in_bytes, parse_statm, parse_stat])
@pytest.mark.parametrize("text", [b"VmRSS:\t 15", b"716 383 3", b"1 (a) S 1"])
def test_truncated_text_is_refused(parse: Callable[[bytes], object], text: bytes) -> None:
    with pytest.raises(BadText, match="line 1 of sta"):
        parse(text)


# man 5 proc_pid_stat: pid (comm) state ppid ... 9 flags ... 20 num_threads
# 23 vsize 24 rss.
STAT = (
    b"4711 (%s) S 1 4711 4711 0 -1 4194304 85 0 0 0 0 0 0 0 20 0 3 0 987654 5738496 383"
    b" 18446744073709551615 1 1 0 0\n"
)


@pytest.mark.parametrize(
    "comm",
    ["sleep", "a b", "a) S 1 (b", ") R 9 9 9", "((", "", "new\nline", "caf\udce9", "\x1b[31m"],
)
def test_a_name_may_hold_anything(comm: str) -> None:
    stat = parse_stat(STAT % comm.encode(errors="surrogateescape"))
    assert stat.comm == comm
    assert (stat.state, stat.flags, stat.threads) == ("S", 4194304, 3)
    assert (stat.vsize, stat.rss) == (5738496, 383)


def test_our_own_stat_says_that_we_run() -> None:
    assert parse_stat(Path("/proc/self/stat").read_bytes()).state == "R"
