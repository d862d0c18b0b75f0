"""JSON: the contract of schema pagewalk/1, key by key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import by_hand
from tests.by_hand import HEAP, PROGRAM, ROWS
from tests.render import written
from tests.render.written import HOSTILE

TOTALS = {
    "size", "present", "rss", "not_present", "not_mapped", "swap", "pss", "uss", "anon", "file",
    "shmem", "zero", "special", "hugetlb", "distinct", "freed",
}
HEAD = {"schema", "pagewalk", "process", "source"}
FOOT = {"partial", "stall_ns"}
# The keys that every document must have, and those that it may have in addition.
PROMISED = {
    "show": HEAD | FOOT | {"totals", "from_kernel", "unmapped", "vmas"},
    "maps": HEAD | FOOT | {"totals", "from_kernel", "unmapped", "vmas"},
    "groups": HEAD | FOOT | {"totals", "groups"},
    "explain": HEAD | FOOT | {"ledger"},
}
MORE = {
    "show": {"withheld", "ledger", "beyond_rss", "groups"},
    "groups": {"withheld"},
    "maps": {"withheld"},
    "explain": {"withheld", "beyond_rss", "not_read", "distinct", "freed", "unmapped"},
}


def document(name: str, *, frames: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(written.write("json", name, frames=frames))
    return found


@pytest.mark.parametrize("name", PROMISED)
def test_a_document_has_the_promised_keys(name: str) -> None:
    found = document(name)
    assert set(found) == PROMISED[name] | MORE[name]
    assert found["schema"] == "pagewalk/1"
    assert found["process"] == {"pid": 4711, "name": "pro gram\x1b[1m", "exe": "/usr/bin/program"}
    assert found["source"] == {"name": "procfs", "arch": "x86_64", "page_size": 4096}
    assert found["stall_ns"] == 1_234_567
    assert found["partial"] == []


@pytest.mark.parametrize("name", ["show", "maps"])
def test_totals_and_vmas_have_the_promised_amounts(name: str) -> None:
    found = document(name)
    assert set(found["totals"]) >= TOTALS
    assert list(found["totals"])[: len(TOTALS)] == [
        "size", "present", "rss", "not_present", "not_mapped", "swap", "pss", "uss", "anon", "file",
        "shmem", "zero", "special", "hugetlb", "distinct", "freed",
    ]
    for vma in found["vmas"]:
        assert set(vma) >= {"start", "end", "perms", "offset", "name"} | set(found["totals"])


def test_amounts_are_bytes_and_addresses_are_text() -> None:
    program = document("maps")["vmas"][0]
    expected = {
        "start": "0x400000", "end": "0x404000", "perms": "r-xp", "offset": 4096,
        "name": "/usr/bin/program", "size": 16384, "present": 8192, "rss": 8192, "pss": 5461,
        "uss": 4096, "file": 8192, "anon": 0,
    }
    assert {key: program[key] for key in expected} == expected
    assert document("maps")["vmas"][2]["name"] == by_hand.EVIL


@pytest.mark.parametrize("end", [HOSTILE, b"\xff\xfe\xc3".decode(errors="surrogateescape"), "日本"])
def test_every_name_is_read_back_byte_by_byte(end: str) -> None:
    text = written.write("json", "maps", names=end)
    assert text.isascii()
    found = json.loads(text)
    for name, wanted in ((found["vmas"][2]["name"], by_hand.EVIL),
                         (found["process"]["exe"], "/usr/bin/program")):
        raw = name.encode(errors="surrogateescape")
        assert raw == wanted.encode() + end.encode(errors="surrogateescape")


def test_the_vmas_add_up_to_the_totals() -> None:
    found = document("maps")
    for key in TOTALS - {"pss", "not_mapped"}:
        assert sum(vma[key] for vma in found["vmas"]) == found["totals"][key]


def test_withheld_is_null_with_a_reason_and_never_zero() -> None:
    found = document("show", frames=False)
    assert found["totals"]["pss"] is found["totals"]["not_mapped"] is None
    assert all(vma["pss"] is None for vma in found["vmas"])
    assert found["totals"]["swap"] == 4096
    reason = "frames are hidden\nrun as root"
    assert found["partial"] == [f"pss: {reason}"]
    assert {"what": "pss", "why": reason} in found["withheld"]


def test_a_ledger_line_adds_up_by_its_own_numbers() -> None:
    rows = document("explain")["ledger"]
    assert len(rows) > 20
    for row in rows:
        assert set(row) >= {"against", "ours", "theirs", "causes", "unexplained"}
        assert row["ours"] - row["theirs"] == (
            sum(cause["bytes"] for cause in row["causes"]) + row["unexplained"]
        )
    pss = next(row for row in rows if row["against"] == "smaps_rollup Pss")
    (cause,) = pss["causes"]
    promised = {"cause": "pss_truncation", "bytes": 341, "exact": True}
    assert {key: cause[key] for key in promised} == promised


@pytest.mark.parametrize("name", ["show", "explain"])
def test_what_present_has_beyond_rss_is_named(name: str) -> None:
    assert document(name)["beyond_rss"] == [{"part": "zero_page", "bytes": 4096}]


# ---- pages: one object per line

PAGE_KEYS = ["addr", "size", "state", "pfn", "phys", "flags", "mapcount", "swap"]


def page_lines(*, frames: bool = True) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.write("json", "pages", frames=frames).splitlines()]


def test_every_page_is_one_object_with_the_promised_keys_in_order() -> None:
    lines = page_lines()
    assert len(lines) == len(ROWS)
    assert all(list(line) == PAGE_KEYS for line in lines)
    assert [int(line["addr"], 16) for line in lines] == [row[0] for row in ROWS]
    assert [line["state"] for line in lines] == [row[2].name.lower() for row in ROWS]


def test_a_page_in_ram_a_hole_and_a_swapped_page() -> None:
    lines = {int(line["addr"], 16): line for line in page_lines()}
    assert lines[PROGRAM] == {
        "addr": "0x0000000000400000", "size": 4096, "state": "file", "pfn": 256,
        "phys": "0x0000000000100000", "flags": ["exclusive", "uptodate", "lru", "mmap"],
        "mapcount": 1, "swap": None,
    }
    assert lines[PROGRAM + 8192] == {
        "addr": "0x0000000000402000", "size": 8192, "state": "absent", "pfn": None, "phys": None,
        "flags": [], "mapcount": None, "swap": None,
    }
    assert lines[HEAP + 3 * 4096]["swap"] == {"type": 1, "offset": 5}


def test_withheld_frames_are_null_on_every_line() -> None:
    for line in page_lines(frames=False):
        assert line["pfn"] is line["phys"] is line["mapcount"] is line["swap"] is None


# ---- doctor and the process list


def test_doctor_and_processes() -> None:
    found = document("doctor")
    assert set(found) == {"schema", "pagewalk", "machine", "checks"}
    assert set(found["checks"][1]) == {"name", "ok", "finding", "remedy"}
    rows = document("processes")["processes"]
    assert rows[0] == {"pid": 1, "name": "init", "argv0": "/sbin/init", "uid": 0, "rss": 12 << 20,
                       "script": "", "command": "/sbin/init splash"}


def test_a_group_says_what_tells_it() -> None:
    groups = {row["group"]: row for row in document("groups")["groups"]}
    assert groups["heap"]["evidence"] == "the kernel marks what brk(2) gave as [heap]"
    assert groups["heap"]["rss"] == 3 * 4096 and groups["heap"]["vmas"] == 1
