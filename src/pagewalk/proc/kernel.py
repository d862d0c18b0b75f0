"""This kernel's release, configuration and architecture."""

from __future__ import annotations

import mmap
import os
import sys
from functools import cache

from pagewalk.model.errors import BadText
from pagewalk.model.facts import Facts
from pagewalk.proc.files import lines, number, read_bytes

# The configuration symbols that affect what we see.
SYMBOLS = (
    "CONFIG_DEVICE_PRIVATE",
    "CONFIG_MEMORY_FAILURE",
    "CONFIG_MIGRATION",
    "CONFIG_NO_PAGE_MAPCOUNT",
    "CONFIG_PTE_MARKER",
    "CONFIG_READ_ONLY_THP_FOR_FS",
)

# include/linux/mmzone.h, the first of the capabilities in lru_gen/enabled
_LRU_GEN_CORE = 1


def read_facts() -> Facts:
    """Return the facts of the running kernel, with its current number of CPUs.

    The configuration and the protection keys are read when first needed, and then cached.
    """
    return Facts(
        architecture=architecture(),
        release=release(),
        page_size=mmap.PAGESIZE,
        cpus=os.cpu_count() or 1,
        read_config=read_config,
        read_protection_keys=has_protection_keys,
    )


@cache
def release() -> tuple[int, int]:
    """Return this kernel's (major, minor)."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


@cache
def read_config() -> frozenset[str] | None:
    """Return which of SYMBOLS are built in, or None where neither /proc nor /boot shows it."""
    for path in (
        "/proc/config.gz",
        f"/boot/config-{os.uname().release}",
        f"/lib/modules/{os.uname().release}/config",
    ):
        try:
            return parse_config(read_bytes(path))
        except (OSError, BadText):
            continue
    return None


def parse_config(raw: bytes) -> frozenset[str]:
    """Return which of SYMBOLS are built in, from a kernel's configuration, plain or gzipped.

    Raises BadText if it is truncated, or has a gzip header but is not gzip.
    """
    if raw.startswith(b"\x1f\x8b"):
        import zlib  # only used here, as gzip would be, which takes a millisecond to import

        try:
            raw = zlib.decompress(raw, wbits=16 + zlib.MAX_WBITS)
        except zlib.error:
            raise BadText("config.gz", 1, raw) from None
    built = set(lines(raw, "config"))
    return frozenset(symbol for symbol in SYMBOLS if symbol.encode() + b"=y" in built)


def architecture() -> str:
    """Return the kernel's architecture as uname names it: x86_64, aarch64, riscv64."""
    machine = os.uname().machine
    if sys.maxsize < 1 << 32:  # a 32-bit program cannot tell
        return machine
    # setarch(8) makes uname say that the kernel has 32 bits (override_architecture)
    return {"i686": "x86_64", "armv8l": "aarch64"}.get(machine, machine)


def has_root_pairs() -> bool:
    """Return whether the root of a process's page tables may be two pages that are no folio.

    Kernels for x86 that can isolate page tables allocate two, whether they do so or not
    (PGD_ALLOCATION_ORDER, arch/x86/mm/pgtable.c); since 6.14 they are one folio (__pgd_alloc).
    """
    return architecture() == "x86_64" and release() < (6, 14)


def has_generations() -> bool:
    """Return whether the kernel sorts the pages of each LRU list by generation (MGLRU) now.

    Then a folio's generation is in its flags, and PG_active says nothing; which generations count
    as active differs from list to list (lru_gen_is_active, include/linux/mm_inline.h).
    """
    try:
        caps = read_bytes("/sys/kernel/mm/lru_gen/enabled")
        return bool(int(caps, 16) & _LRU_GEN_CORE)
    except (OSError, ValueError):  # a kernel before 6.1, or without CONFIG_LRU_GEN
        return False


def possible_cpus() -> int | None:
    """Return how many CPUs there can ever be, plugged in or not; None if that is not told."""
    try:
        [listed] = lines(read_bytes("/sys/devices/system/cpu/possible"), "possible")
        ranges = [part.partition(b"-") for part in listed.split(b",")]
        return sum(number(last or first) - number(first) + 1 for first, _, last in ranges)
    except (OSError, ValueError, BadText):  # sysfs is not mounted
        return None


@cache
def has_protection_keys() -> bool:
    """Return whether the CPU has protection keys and the kernel uses them (arch_pkeys_enabled)."""
    try:
        return b" ospke " in read_bytes("/proc/cpuinfo").replace(b"\n", b" ")
    except OSError:
        return False
