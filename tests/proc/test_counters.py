"""smaps, smaps_rollup, status, statm and stat, on recorded text."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.proc.counters import in_bytes, parse_smaps
from pagewalk.proc.target import fields, parse_stat

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
    assert fields(text)[b"Threads"] == b"2"


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
