"""smaps, smaps_rollup, status, statm and stat, on recorded text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pagewalk.errors import BadText
from pagewalk.proc.counters import in_bytes, parse_smaps, parse_statm
from pagewalk.proc.target import parse_stat

RECORDED = b"""\
55d1be1c3000-55d1be1e4000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
KernelPageSize:        4 kB
Rss:                  12 kB
Pss:                   7 kB
Swap:                  4 kB
THPeligible:           0
ProtectionKey:         0
VmFlags: rd wr mr mw me ac lo
7f1c00001000-7f1c00002000 r--p 00001000 fe:00 77                         /tmp/Rss: 9 kB
Size:                  4 kB
Rss:                   4 kB
VmFlags: rd mr mw me
"""


def test_amounts_are_bytes_by_the_kernels_name() -> None:
    smaps = parse_smaps(RECORDED)
    assert {k: v.tolist() for k, v in smaps.columns.items()} == {
        "Size": [135168, 4096], "KernelPageSize": [4096, 0], "Rss": [12288, 4096],
        "Pss": [7168, 0], "Swap": [4096, 0],
    }


def test_a_block_begins_at_its_addresses_whatever_the_files_name() -> None:
    smaps = parse_smaps(RECORDED)
    assert smaps.start.tolist() == [0x55D1_BE1C_3000, 0x7F1C_0000_1000]
    assert smaps.end.tolist() == [0x55D1_BE1E_4000, 0x7F1C_0000_2000]


def test_vmflags_are_asked_by_their_code() -> None:
    smaps = parse_smaps(RECORDED)
    assert smaps.has("lo").tolist() == [True, False]
    assert smaps.has("rd").tolist() == [True, True]


def test_a_rollup_is_one_block() -> None:
    rollup = parse_smaps(
        b"55d1a2c4e000-7ffc5b5f4000 ---p 00000000 00:00 0                          [rollup]\n"
        b"Rss:                1800 kB\nPss_Anon:             97 kB\n"
    )
    assert {k: v.tolist() for k, v in rollup.columns.items()} == {
        "Rss": [1800 << 10], "Pss_Anon": [97 << 10],
    }


def test_a_zombies_smaps_is_empty() -> None:
    assert parse_smaps(b"").columns == {}


def test_status_keeps_the_kb_lines_in_bytes() -> None:
    text = b"Name:\tx kB y\nThreads:\t2\nVmRSS:\t    1532 kB\nVmSwap:\t       0 kB\n"
    assert in_bytes(text) == {"VmRSS": 1532 << 10, "VmSwap": 0}


@pytest.mark.parametrize("name", [b"5 kB", b"\rVmRSS:\t0 kB", b"a\x0bVmRSS:\t0 kB", b"\xff"])
def test_a_process_cannot_choose_its_amounts_by_its_name(name: bytes) -> None:
    # The kernel escapes \\n and \\\\ in Name, and nothing else (proc_task_name).
    assert in_bytes(b"Name:\t%b\nVmRSS:\t    1532 kB\n" % name) == {"VmRSS": 1532 << 10}


def test_statm_is_in_bytes() -> None:
    assert parse_statm(b"716 383 371 5 0 85 0\n")[:2] == [716 * 4096, 383 * 4096]


# The kernel ends each line with a newline: what has none was cut, and a cut number looks whole.
@pytest.mark.parametrize("parse", [parse_smaps, in_bytes, parse_statm, parse_stat])
@pytest.mark.parametrize("text", [b"VmRSS:\t 15", b"716 383 3", b"1 (a) S 1", b"1000-20"])
def test_text_that_was_cut_is_refused(parse: Callable[[bytes], object], text: bytes) -> None:
    with pytest.raises(BadText, match=r"line 1 of (sta|smaps)"):
        parse(text)


@pytest.mark.parametrize(
    "line",
    [b"1000-2000 rw-p 0 0:0 0", b"0000-1000 rw-p 0 0:0 0", b"Rss: 4 kB", b"Rss: -4 kB",
     b"Rss: 1_0 kB", b"Rss: 99999999999999999999 kB", b"nonsense", b""],
)
def test_what_no_block_of_smaps_can_hold_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 3 of smaps"):
        parse_smaps(b"1000-2000 rw-p 0 0:0 0\nRss: 4 kB\n%b\n" % line)


# man 5 proc_pid_stat: pid (comm) state ppid ... 9 flags ... 20 num_threads ... 22 starttime
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
    assert (stat.state, stat.flags, stat.threads, stat.starttime) == ("S", 4194304, 3, 987654)
    assert (stat.vsize, stat.rss) == (5738496, 383)


def test_our_own_stat_says_that_we_run() -> None:
    assert parse_stat(Path("/proc/self/stat").read_bytes()).state == "R"
