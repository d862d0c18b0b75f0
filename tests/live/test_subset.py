"""/proc mounted with subset=pid shows processes only, as with systemd's ProcSubset=pid.

Only amounts that need another of its files are withheld.
"""

from __future__ import annotations

import os

import pytest

from pagewalk.proc.kernel import release
from tests import kernel_says
from tests.kernel_says import PAGE
from tests.live.bracket import working_sources
from tests.live.command import Ran, one_sentence, pagewalk
from tests.live.test_scan import can_scan
from tests.machine import prepared
from tests.targets import Running, start

pytestmark = pytest.mark.live

SUBSET = ("unshare", "-m", "sh", "-c", 'mount -t proc -o subset=pid proc /proc && exec "$@"', "sh")
SOURCES = working_sources()
# kcore is one of the missing files, and drgn reads it too.
READ = [name for name in SOURCES if name in ("procfs", "ebpf")]
SAYS = "/proc is mounted with subset=pid, so it shows only processes"
KNOWN = ("size", "present", "rss", "not_mapped", "swap", "hugetlb", "anon", "zero")


def subset(*args: object) -> Ran:
    ran = pagewalk(*args, before=SUBSET)
    assert "run as root" not in ran.out + ran.err
    return ran


@pytest.mark.parametrize("source", READ)
@pytest.mark.parametrize("name", ["plain", "zero_reads", "fork_cow"])
def test_every_number_is_the_same_as_with_a_full_proc(name: str, source: str) -> None:
    with start(name, stopped=True) as running:
        ran = subset("maps", running.pid, "--source", source, "--format", "json")
        whole = pagewalk("maps", running.pid, "--source", source, "--format", "json")
        rss = 1024 * sum(vma.fields["Rss"] for vma in kernel_says.read_smaps(running.pid))
    assert ran.json["totals"]["rss"] == rss
    known, expected = ({key: found.json["totals"][key] for key in KNOWN} for found in (ran, whole))
    if source == "procfs" and not can_scan() and known["zero"] is None:  # because VmRSS lags
        expected["zero"] = None
    assert known == expected
    if source == "procfs":
        assert ran.code == 3
        assert all(vma["pss"] is None for vma in ran.json["vmas"])
        assert any(SAYS in reason for reason in ran.json["partial"])
    else:
        assert ran.code == 0, ran.err
        own = [vma["start"] for vma in whole.json["vmas"] if not vma["name"]]
        assert pss(ran, own) == pss(whole, own)


def pss(ran: Ran, starts: list[str]) -> list[int]:
    # Of memory that no other process maps or unmaps meanwhile.
    return [vma["pss"] for vma in ran.json["vmas"] if vma["start"] in starts]


@pytest.mark.parametrize("source", READ)
@pytest.mark.parametrize("name", ["swap_shmem", "swap_private"])
def test_swap_is_not_zero_where_the_devices_are_not_listed(name: str, source: str) -> None:
    with prepared("zram"), start(name, stopped=True) as running:
        ran = subset("show", running.pid, "--source", source, "--format", "json")
        smaps = kernel_says.read_smaps(running.pid)
        swapped = first_swapped(running, source)
    totals = ran.json["totals"]
    if (name, source) == ("swap_shmem", "procfs") and release() < (6, 5):  # no cachestat(2)
        assert totals["swap"] is None
        return
    assert totals["swap"] == 1024 * sum(vma.fields["Swap"] for vma in smaps) > 0
    assert swapped is None or "swap" in swapped


def first_swapped(running: Running, source: str) -> str | None:
    """Return what vtop says about the first swapped page, None if there is no swap entry."""
    if source == "procfs":
        return None
    rows = pagewalk("pages", running.pid, "--where", "swapped", "--format", "csv").out.split("\n")
    found = [row for row in rows if row.startswith("0x")]
    return subset("vtop", running.pid, found[0].split(",")[0]).out if found else None


@pytest.mark.parametrize("command", ["show", "maps", "pages", "explain", "check"])
def test_every_command_works(command: str) -> None:
    with start("plain", stopped=True) as running:
        ran = subset(command, running.pid)
    assert ran.code in (0, 3), ran.err
    assert ran.out


def test_vtop_works() -> None:
    with start("plain", stopped=True) as running:
        start_of = running.facts["plain"]["start"]
        ran = subset("vtop", running.pid, hex(start_of), "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.json["state"] == "anon"


def test_maps_all_works() -> None:
    with start("plain", stopped=True) as running:
        ran = subset("maps", running.pid, "--all", "--format", "json")
        says = {vma.start: vma.fields for vma in kernel_says.read_smaps(running.pid)}
    assert ran.code == 0, ran.err
    dirty = {int(vma["start"], 16): vma["private_dirty"] for vma in ran.json["vmas"]}
    region = running.facts["plain"]
    assert dirty[region["start"]] == 1024 * says[region["start"]]["Private_Dirty"]
    assert dirty[region["start"]] >= region["anon"] * PAGE


@pytest.mark.parametrize("source", ["kcore", "drgn"])
def test_the_missing_file_is_named(source: str) -> None:
    ran = subset("show", os.getpid(), "--source", source)
    assert ran.code == 1
    assert one_sentence(ran).startswith(f"source '{source}' is not available: ")
    assert SAYS in ran.err or "drgn is not installed" in ran.err


def test_doctor_and_the_list_of_processes_work() -> None:
    ran = subset("doctor", "--format", "json")
    assert ran.code == 0, ran.err
    found = {check["name"]: check for check in ran.json["checks"]}
    for name in ("kpageflags, kpagecount", "swap devices", "page tables (kcore)"):
        assert not found[name]["ok"]
        assert SAYS in found[name]["finding"]
    assert found["pagemap"]["ok"] and found["page frames"]["ok"]
    first = subset("processes")
    assert (first.code, first.err) == (0, "")
    assert "missing: kpageflags, kpagecount" in " ".join(first.out.split())
    assert ("kcore" in first.out) == ("ebpf" not in SOURCES)


def test_the_first_screen_lists_processes_and_says_what_is_missing() -> None:
    ran = subset("overview", "--format", "json")
    assert ran.code == 3
    assert ran.json["processes"] and ran.json["rows"] is None
    assert any("mount /proc without subset=pid" in why for why in ran.json["partial"])
