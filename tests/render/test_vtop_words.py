"""How one address is written: the text fits in 80 columns, and JSON has all of it."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from pagewalk.render import view
from tests.render.written import Terminal
from tests.vtop_by_hand import CASES, found

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def text(case: str, out: io.StringIO | None = None, *, legend: bool = False, **options: Any) -> str:
    out = io.StringIO() if out is None else out
    view("text", "vtop")(found(case, **options), out, legend=legend)
    return out.getvalue()


def document(case: str, **options: Any) -> Any:
    out = io.StringIO()
    view("json", "vtop")(found(case, **options), out)
    return json.loads(out.getvalue())


# With five levels the kernel's half begins elsewhere.
@pytest.mark.parametrize(
    ("case", "levels"),
    [(case, levels) for case in CASES for levels in (4, 5) if (case, levels) != ("kernel", 5)],
)
def test_text_fits_80_columns_and_sends_no_control_characters(
    case: str, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    written = text(case, levels=levels, legend=True)
    assert max(len(line) for line in written.splitlines()) <= 80
    assert CONTROL.search(written) is None


def test_the_page_of_an_address_level_by_level(monkeypatch: pytest.MonkeyPatch) -> None:
    # HEAP + 0x123 = 0x600123: slots 0, 0, 3 and 0 (0x600000 is 3 times 2 MiB)
    monkeypatch.setenv("COLUMNS", "80")
    assert text("page").splitlines() == [
        r"process 4711 (pro gram\x1b[1m)  /usr/bin/program",
        "0x600123 -> physical 0x200123",
        "read by ebpf, x86_64, 4 levels, 4 KiB pages; read twice, same entries",
        "",
        "bits   PGD 47-39  PUD 38-30  PMD 29-21  PTE 20-12  offset 11-0",
        "       000000000  000000000  000000011  000000000  000100100011",
        "index  0          0          3          0          0x123",
        "",
        "LEVEL  INDEX     TABLE  ENTRY AT               ENTRY  RIGHTS",
        "PGD        0  0x100000  0x100000  0x0000000000101067  rwx user",
        "       table at 0x101000: present write user accessed dirty",
        "PUD        0  0x101000  0x101000  0x0000000000102067  rwx user",
        "       table at 0x102000: present write user accessed dirty",
        "PMD        3  0x102000  0x102018  0x0000000000103067  rwx user",
        "       table at 0x103000: present write user accessed dirty",
        "PTE        0  0x103000  0x103000  0x8000000000200067  rw- user",
        "       4 KiB page, frame 0x200: present write user accessed dirty nx",
        "",
        "PAGE     anon, 4 KiB: 0x200000 + 0x123 = 0x200123",
        "FRAME    0x200, mapcount 1: uptodate lru mmap swapbacked",
        "VMA      600000-606000 rw-p +0x123: [heap]",
        "PAGEMAP  0x0000000000001234 agrees",
    ]


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("huge", "bits   PGD 47-39  PUD 38-30  PMD 29-21  offset 20-0"),
        ("huge", "       2 MiB page, frame 0x400: present write user accessed dirty pse nx"),
        ("none", "       empty"),
        ("none", "HOLE     0x402000-0x404000, 8 KiB, from the previous entry to its VMA's end"),
        ("no_table", "STATE    no page table"),
        ("swap", "       swap, type 1, offset 5"),
        # slot 5 of 4096 bytes begins at byte 0x5000
        ("swap", r"SWAP     device 1 (/dev/zram\x1b), slot 5, byte 0x5000"),
        ("guard", "       marker, type 31, offset 4, marks guard"),
        ("guard", "0x604000 -> no page: the PTE entry says guard"),
        ("doubt", "0x600000 -> unknown: the PTE entry is malformed"),
        ("outside", "0x1000 -> no page: the PGD entry is empty"),
        ("kernel", "       4 KiB page, frame 0x1: present write accessed dirty global nx"),
    ],
)
def test_a_line_of_the_text(case: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert line in text(case).splitlines()


def test_an_entrys_frame_stands_out_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    painted = text("page", Terminal())
    assert "0x800\x1b[1m0000000200\x1b[0m067" in painted
    monkeypatch.setenv("NO_COLOR", "1")
    assert CONTROL.search(text("page", Terminal())) is None


def test_the_legend_explains_every_set_bit() -> None:
    written = text("huge", legend=True)
    assert "entry pse          this entry maps a huge page directly" in written
    assert "frame uptodate     holds current data" in written
    assert "entry pse" not in text("huge")


def test_json_has_every_level() -> None:
    huge = document("huge")
    # BIG + 0x12345 = 0x7f0000212345: slots 254, 0 and 1; 0x400000 + 0x12345 = 0x412345
    assert huge["addr"] == "0x7f0000212345"
    assert (huge["phys"], huge["size"], huge["offset"]) == ("0x412345", 2 << 20, 0x12345)
    assert [row["level"] for row in huge["levels"]] == ["PGD", "PUD", "PMD"]
    assert huge["levels"][2] == {
        "level": "PMD", "table": "0x102000", "index": 1, "entry_addr": "0x102008",
        "entry": "0x80000000004000e7", "kind": "2 MiB page", "next": None, "pfn": 0x400,
        "bits": {"pkey": 0, "present": True, "write": True, "user": True, "accessed": True,
                 "dirty": True, "pse": True, "nx": True},
        "rights": ["write", "user"], "doubt": None,
    }
    # frame 0x400 + page 0x12 of it
    assert huge["frame"]["pfn"] == 0x412


def test_json_says_null_where_there_is_nothing() -> None:
    outside = document("outside")
    assert [outside[key] for key in ("phys", "state", "vma", "frame", "hole", "swap_device")] == [
        None
    ] * 6
    assert document("none")["hole"] == ["0x402000", "0x404000"]
    assert document("swap")["levels"][-1]["bits"] == {"type": 1, "offset": 5}
