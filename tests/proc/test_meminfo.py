"""/proc/meminfo, on lines written by hand and on this machine."""

from __future__ import annotations

import os

import pytest

from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.proc import meminfo
from pagewalk.proc.meminfo import parse_meminfo, read_meminfo

TEXT = b"""\
MemTotal:       24710388 kB
Active(anon):        440 kB
HugePages_Total:       3
Hugepagesize:       2048 kB
VmallocTotal:   34359738367 kB
"""


def test_kib_become_bytes_and_pages_stay_counts() -> None:
    assert parse_meminfo(TEXT) == {
        "MemTotal": 24710388 * 1024,
        "Active(anon)": 440 * 1024,
        "HugePages_Total": 3,
        "Hugepagesize": 2 << 20,
        "VmallocTotal": 34359738367 * 1024,
    }


@pytest.mark.parametrize(
    "line", [b"\n", b"MemFree: -1 kB\n", b"MemFree: kB\n", b"Mem Free: 1 kB\n", b"MemFree: 1 MB\n",
             b"MemFree: 1", b"MemFree: 1\r\n", b"MemFree: %s kB\n" % (b"9" * 21)],
)
def test_an_invalid_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 6 of meminfo"):
        parse_meminfo(TEXT + line)


def test_without_the_file_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meminfo, "PATH", "/proc/no/meminfo")
    with pytest.raises(SourceUnavailable, match="cannot read /proc/no/meminfo: No such file"):
        read_meminfo()


def test_this_machines_memory_is_what_sysconf_says() -> None:
    # sysinfo(2) has MemTotal in pages.
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert read_meminfo()["MemTotal"] == total
