"""What this kernel is: its release, its configuration, and the numbers that follow from them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SwapTypes:
    """Which type numbers of a swap entry mean what; each a half-open range, None if unknown.

    Types below ``swap`` are swap devices. Where the configuration is not readable only
    ``swap`` = 22 (the least any kernel leaves) and ``marker`` = 31 are certain, and a type in
    between stays a software entry of unknown kind.
    Source: include/linux/swap.h (MAX_SWAPFILES).
    """

    swap: int
    hwpoison: range
    migration: range
    device: range
    marker: range


def swap_types(release: tuple[int, int], config: dict[str, str] | None) -> SwapTypes:
    """Return the type numbers of kernel ``release`` built with ``config`` (None: unreadable)."""
    none = range(0)
    if config is None:
        return SwapTypes(22, none, none, none, range(31, 32) if release >= (6, 8) else none)
    poison = 1 if config.get("CONFIG_MEMORY_FAILURE") == "y" else 0
    moving = 0
    if config.get("CONFIG_MIGRATION") == "y":
        moving = 3 if release >= (6, 0) else 2
    device = 0
    if config.get("CONFIG_DEVICE_PRIVATE") == "y":
        device = 3 if release >= (6, 15) else 4 if release >= (5, 14) else 2
    if release >= (6, 8):
        markers, errors = 1, 0
    elif release >= (5, 19):
        markers, errors = (1 if config.get("CONFIG_PTE_MARKER") == "y" else 0), 1
    else:
        markers, errors = 0, 0
    first = 32 - (poison + moving + device + markers + errors)
    edges = [first]
    for width in (poison, moving, device, markers):
        edges.append(edges[-1] + width)
    # The swapin-error type of 5.19 to 6.7 stands for a lost page: poisoned.
    hwpoison = range(edges[0], edges[1]) if poison else range(32 - errors, 32)
    return SwapTypes(
        first, hwpoison, range(edges[1], edges[2]), range(edges[2], edges[3]),
        range(edges[3], edges[4]),
    )


@cache
def release() -> tuple[int, int]:
    """Return this kernel's (major, minor)."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


@cache
def read_config() -> dict[str, str] | None:
    """Return this kernel's configuration, or None where neither /proc nor /boot shows it."""
    for path in (
        Path("/proc/config.gz"),
        Path(f"/boot/config-{os.uname().release}"),
        Path(f"/lib/modules/{os.uname().release}/config"),
    ):
        try:
            raw = path.read_bytes()
        except OSError:
            continue
        if path.suffix == ".gz":
            import gzip  # only here, and most walks meet no software entry

            raw = gzip.decompress(raw)
        rows = (line.partition("=") for line in raw.decode().splitlines() if line[:1] == "C")
        return {name: value for name, _, value in rows}
    return None


def architecture() -> str:
    """Return the machine's name as uname gives it: x86_64, aarch64, riscv64."""
    return os.uname().machine
