"""Who may read kernel memory, by the real command: capabilities, lockdown, and what auto chooses.

Root with a smaller bounding set has only those capabilities after exec (capabilities(7)), and may
read a process that has none.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel_says import read_smaps
from tests.live.command import Ran, one_sentence, pagewalk
from tests.targets import asleep

pytestmark = pytest.mark.live

FAILED = 1
GRANT = "run as root, or grant CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)"
# What reading through kcore needs: the file itself, and the address of init_task.
KCORE = ("sys_rawio", "syslog")


def lockdown() -> str:
    """Return the mode in force: none, integrity, confidentiality; none without lockdown at all."""
    try:
        modes = Path("/sys/kernel/security/lockdown").read_text()
    except OSError:
        return "none"
    return modes.partition("[")[2].partition("]")[0]


CONFIDENTIAL = lockdown() == "confidentiality"
HAS_KCORE = Path("/proc/kcore").exists()


@pytest.fixture(scope="module")
def target() -> Iterator[int]:
    with subprocess.Popen([*only(), "sleep", "3600"]) as process:
        try:
            asleep(process.pid, "sleep")
            yield process.pid
        finally:
            process.kill()


def only(*capabilities: str) -> tuple[str, ...]:
    """Return the words to put before a command so that it has only these capabilities."""
    kept = "".join(f",+{name}" for name in capabilities)
    return ("setpriv", f"--bounding-set=-all{kept}", "--inh-caps=-all")


def show(pid: int, source: str, *before: str) -> Ran:
    return pagewalk("show", "--format", "json", "--source", source, pid, before=before)


def check_reads(ran: Ran, source: str, pid: int) -> None:
    """Check that page tables were read, and that the RSS is the kernel's own."""
    assert ran.code == 0, ran.err
    assert ran.json["source"]["name"] == source
    assert ran.json["totals"]["not_mapped"] is not None
    assert ran.json["totals"]["rss"] == 1024 * sum(vma.fields["Rss"] for vma in read_smaps(pid))


@pytest.mark.skipif(CONFIDENTIAL, reason="lockdown: nobody may")
# The short round has one command: each takes ten seconds in a guest.
@pytest.mark.parametrize(
    "held", [pytest.param(("bpf", "perfmon"), marks=pytest.mark.vmshort), ("sys_admin",)]
)
def test_ebpf_works_with_no_more_than_it_needs(held: tuple[str, ...], target: int) -> None:
    check_reads(show(target, "ebpf", *only(*held)), "ebpf", target)


@pytest.mark.skipif(CONFIDENTIAL, reason="lockdown is told first")
@pytest.mark.parametrize(
    ("held", "missing"),
    [
        (("bpf",), "CAP_PERFMON"),
        (("perfmon",), "CAP_BPF"),
        (KCORE, "CAP_BPF and CAP_PERFMON"),
        ((), "CAP_BPF and CAP_PERFMON"),
    ],
)
def test_ebpf_names_what_is_missing(held: tuple[str, ...], missing: str, target: int) -> None:
    ran = show(target, "ebpf", *only(*held))
    assert ran.code == FAILED
    assert one_sentence(ran).endswith(f": {missing} missing; {GRANT}")


@pytest.mark.skipif(CONFIDENTIAL or not HAS_KCORE, reason="lockdown, or no CONFIG_PROC_KCORE")
def test_kcore_works_with_no_more_than_it_needs(target: int) -> None:
    check_reads(show(target, "kcore", *only(*KCORE)), "kcore", target)


@pytest.mark.skipif(CONFIDENTIAL or not HAS_KCORE, reason="lockdown, or no CONFIG_PROC_KCORE")
@pytest.mark.parametrize(
    ("held", "missing"),
    [
        (("sys_rawio",), "CAP_SYSLOG"),
        (("sys_admin",), "CAP_SYS_RAWIO"),
        (("bpf", "perfmon"), "CAP_SYS_RAWIO"),
        ((), "CAP_SYS_RAWIO"),
    ],
)
def test_kcore_names_what_is_missing(held: tuple[str, ...], missing: str, target: int) -> None:
    ran = show(target, "kcore", *only(*held))
    assert ran.code == FAILED
    assert missing in one_sentence(ran)


@pytest.mark.skipif(HAS_KCORE, reason="this kernel has /proc/kcore")
def test_a_kernel_without_kcore_is_named(target: int) -> None:
    ran = show(target, "kcore")
    assert ran.code == FAILED
    assert "CONFIG_PROC_KCORE" in one_sentence(ran)


@pytest.mark.skipif(not CONFIDENTIAL, reason="only where vmtest boots with confidentiality")
@pytest.mark.parametrize("source", ["ebpf", "kcore"])
def test_confidentiality_refuses_even_root_and_is_named(source: str, target: int) -> None:
    ran = show(target, source)
    assert ran.code == FAILED
    assert "kernel lockdown is in confidentiality mode" in one_sentence(ran)


@pytest.mark.skipif(lockdown() != "integrity", reason="only where vmtest boots with integrity")
@pytest.mark.parametrize("source", ["ebpf", "kcore"])
def test_integrity_refuses_nothing(source: str, target: int) -> None:
    check_reads(show(target, source), source, target)


@pytest.mark.parametrize(
    ("held", "reads"),
    [(("bpf", "perfmon"), "ebpf"), (("sys_admin",), "ebpf"), (KCORE, "kcore"), ((), "procfs")],
)
def test_auto_chooses_the_best_that_works(held: tuple[str, ...], reads: str, target: int) -> None:
    if CONFIDENTIAL or (reads == "kcore" and not HAS_KCORE):
        reads = "procfs"
    ran = show(target, "auto", *only(*held))
    assert ran.json["source"]["name"] == reads
    assert (ran.json["totals"]["not_mapped"] is None) == (reads == "procfs")


def test_auto_says_why_it_reads_no_page_tables(target: int) -> None:
    ran = pagewalk("show", target, before=only())
    says = " ".join(ran.out.split())
    assert "read by procfs" in says
    cause = "kernel lockdown is in confidentiality mode" if CONFIDENTIAL else GRANT
    assert cause in says and "source 'ebpf' is not available" in says


def test_full_root_reads_page_tables_unless_locked_down(target: int) -> None:
    assert os.geteuid() == 0
    ran = show(target, "auto")
    assert ran.code == 0
    assert ran.json["source"]["name"] == ("procfs" if CONFIDENTIAL else "ebpf")


@pytest.mark.parametrize(
    ("held", "lacks"),
    [(("sys_admin",), False), (("bpf", "perfmon"), False), (KCORE, not HAS_KCORE), ((), True)],
)
def test_the_list_of_processes_reports_missing_page_tables_only_where_nothing_reads_them(
    held: tuple[str, ...], lacks: bool
) -> None:
    first = " ".join(pagewalk("processes", before=only(*held)).out.split())
    missing = first.partition("missing: ")[2].partition(" (pagewalk doctor")[0]
    assert ("page tables (ebpf), page tables (kcore)" in missing + ")") == (lacks or CONFIDENTIAL)
    assert ("page tables" in missing) == (lacks or CONFIDENTIAL)


def test_doctor_says_that_pss_is_exact_where_ebpf_works() -> None:
    for held, ok in ((("bpf", "perfmon"), not CONFIDENTIAL), ((), False)):
        ran = pagewalk("doctor", "--format", "json", before=only(*held))
        found = {check["name"]: check for check in ran.json["checks"]}
        assert found["mapcount of each page"]["ok"] == ok
