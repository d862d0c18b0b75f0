"""What this kernel and our privileges allow: one check per facility, each actually tried."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pagewalk.model.errors import PagewalkError, SourceUnavailable
from pagewalk.proc import kernel, swap
from pagewalk.proc.files import to_do
from pagewalk.proc.frames import open_frames
from pagewalk.proc.namespace import REMEDY, own_numbers
from pagewalk.proc.pagemap import GUARD, PAGE, can_scan, find_pfn
from pagewalk.proc.refusals import why_missing
from pagewalk.proc.rights import has_capability, hides_processes, in_initial_user_namespace

AVERAGED = (6, 15)  # the first kernel that has CONFIG_NO_PAGE_MAPCOUNT
CONFIGURATION = "/proc/config.gz (CONFIG_IKCONFIG_PROC) or /boot/config-*"


class Check(NamedTuple):
    """One facility: whether it works, what it provides or what is lost, and how to get it."""

    name: str
    ok: bool
    finding: str
    remedy: str = ""


def checks() -> list[Check]:
    """Return every check in order of importance; only one if /proc does not show this process."""
    try:
        own_numbers()
    except PagewalkError as err:
        finding, _, remedy = str(err).partition("; ")
        return [Check("/proc", False, finding, remedy)]
    return [check() for check in CHECKS]


def missing(found: list[Check]) -> list[str]:
    """Return the names of failed checks that matter: one way to the page tables is enough."""
    names = [check.name for check in found if not check.ok]
    if all(name in names for name in TABLES):
        return names
    return [name for name in names if name not in TABLES]


def own_pagemap() -> Check:
    try:
        os.close(os.open("/proc/self/pagemap", os.O_RDONLY))
    except OSError as err:
        return Check(
            "pagemap", False, f"/proc/self/pagemap: {err.strerror}: no pages are visible",
            "mount /proc; the kernel needs CONFIG_PROC_PAGE_MONITOR",
        )
    return Check("pagemap", True, "present, swapped and shared bits of your own processes")


def page_frames() -> Check:
    try:
        shown = find_pfn(np.ones(1, np.uint64))
    except OSError as err:
        return Check("page frames", False, f"pagemap cannot be read: {err.strerror}", "run as root")
    if shown:
        return Check("page frames", True, "physical addresses are shown (CAP_SYS_ADMIN)")
    where = "" if in_initial_user_namespace() else " in the initial user namespace"
    return Check(
        "page frames", False, "physical addresses are hidden: no CAP_SYS_ADMIN" + where,
        "run as root; in a container: docker run --cap-add SYS_ADMIN, or run on the host",
    )


def frame_database() -> Check:
    try:
        open_frames().close()
    except FileNotFoundError:
        why, remedy = why_missing("/proc/kpageflags", "CONFIG_PROC_PAGE_MONITOR")
        return Check("kpageflags, kpagecount", False, why, remedy)
    except OSError as err:
        return Check(
            "kpageflags, kpagecount", False, f"{err.strerror}: no PSS, USS, kinds or KSM",
            to_do(err, "run as root, or with CAP_DAC_READ_SEARCH: the files are readable by root"
                       " only"),
        )
    return Check("kpageflags, kpagecount", True, "flags and mapcount of every page frame")


def pagemap_scan() -> Check:
    try:
        with open("/proc/self/pagemap", "rb", 0) as own:
            scans, guards = can_scan(own.fileno()), can_scan(own.fileno(), GUARD)
    except OSError:
        return Check("PAGEMAP_SCAN", False, "pagemap cannot be opened", "mount /proc")
    if not scans:
        return Check(
            "PAGEMAP_SCAN", False,
            "not in this kernel: every page of a VMA is read, huge mappings are not visible",
            "Linux 6.7 or later",
        )
    guard = " and guard regions" if guards else ""
    return Check("PAGEMAP_SCAN", True, f"finds populated ranges, huge mappings{guard}")


def other_processes() -> Check:
    if hides_processes() and not has_capability("CAP_SYS_PTRACE"):
        return Check(
            "other processes", False, "/proc is mounted with hidepid: they are not listed",
            "run as root, or remount /proc with hidepid=0",
        )
    if len(own_numbers()) > 1:
        return Check(
            "other processes", False,
            "/proc belongs to another PID namespace: a pid that means one process there and another"
            " here is refused",
            REMEDY,
        )
    if has_capability("CAP_SYS_PTRACE"):
        return Check("other processes", True, "every process not protected by a security module")
    who = "root without CAP_SYS_PTRACE" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    return Check(
        "other processes", False, f"you are {who}: only processes with the same uid",
        "run as root; in a container: docker run --cap-add SYS_PTRACE",
    )


def shmem_swap() -> Check:
    fd = os.memfd_create("pagewalk", os.MFD_CLOEXEC)
    try:
        swap.evicted(fd, 0, PAGE)
    except OSError as err:
        since = "Linux 6.5 or later" if err.errno == errno.ENOSYS else "allow it by seccomp"
        return Check("swap of shmem", False, f"cachestat(2): {err.strerror}", since)
    finally:
        os.close(fd)
    if has_capability("CAP_SYS_ADMIN") or has_capability("CAP_CHECKPOINT_RESTORE"):
        return Check("swap of shmem", True, "cachestat(2) through /proc/PID/map_files")
    return Check(
        "swap of shmem", False, "/proc/PID/map_files cannot be followed",
        "run as root, or with CAP_CHECKPOINT_RESTORE",
    )


def swap_entries() -> Check:
    if kernel.read_config() is None:
        return Check(
            "kinds of swap entries", False,
            "the kernel configuration is not readable: migration, poison and device entries are"
            " shown as 'soft'",
            CONFIGURATION,
        )
    return Check("kinds of swap entries", True, "swap, migration, device, poison, marker")


def mapcounts() -> Check:
    name, config = "mapcount of each page", kernel.read_config()
    if not (page_frames().ok and frame_database().ok) and not page_tables().ok:
        return Check(
            name, False, "not visible to you: no PSS or USS",
            "get 'page frames' and 'kpageflags, kpagecount', or 'page tables'",
        )
    if config is None and kernel.release() >= AVERAGED:
        return Check(
            name, False,
            "PSS and USS are exact unless this kernel has CONFIG_NO_PAGE_MAPCOUNT, which cannot be"
            " checked: its configuration is not readable",
            CONFIGURATION,
        )
    if "CONFIG_NO_PAGE_MAPCOUNT" in (config or ()):
        return Check(
            name, False,
            "CONFIG_NO_PAGE_MAPCOUNT: the kernel keeps an average mapcount for each large folio, so"
            " PSS and USS are approximate, here and in smaps",
            "use a kernel with CONFIG_PAGE_MAPCOUNT",
        )
    return Check(name, True, "PSS and USS are exact, page by page")


def swap_devices() -> Check:
    devices = swap.read_swaps()
    if devices is None:
        why, remedy = why_missing("/proc/swaps", "CONFIG_SWAP")
        return Check("swap devices", False, f"unknown: {why}", remedy)
    listed = ", ".join(device.path for device in devices)
    return Check("swap devices", True, listed or "none: nothing can be swapped out")


def summary() -> str:
    """Return one line: the machine, and what is missing for all to be seen."""
    lacking = missing(checks())
    return machine() + (f"; missing: {', '.join(lacking)} (see pagewalk doctor)" if lacking else "")


def page_tables() -> Check:
    from pagewalk.kernel.open import open_bpf

    gives = "not_mapped by level, dirty and accessed bits, vtop; without taking the target's locks"
    return tried("page tables (ebpf)", lambda: open_bpf().close(), gives)


def kernel_memory() -> Check:
    from pagewalk.kernel.readers.kcore import KcoreMemory

    gives = "the same through /proc/kcore, without BPF"
    return tried("page tables (kcore)", lambda: KcoreMemory().close(), gives)


def tried(name: str, open_and_close: Callable[[], None], gives: str) -> Check:
    try:
        open_and_close()
    except SourceUnavailable as err:
        return Check(name, False, err.why, err.remedy)
    return Check(name, True, gives)


TABLES = ("page tables (ebpf)", "page tables (kcore)")

CHECKS: tuple[Callable[[], Check], ...] = (
    own_pagemap, page_frames, frame_database, pagemap_scan, other_processes, mapcounts,
    swap_entries, shmem_swap, swap_devices, page_tables, kernel_memory,
)


def machine() -> str:
    """Return one line about this machine: kernel, architecture, page size, user."""
    release = os.uname().release
    who = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    return f"Linux {release}, {kernel.architecture()}, {PAGE >> 10} KiB pages, {who}"
