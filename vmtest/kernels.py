"""The kernels that the live tests run on: a plain table, one row per way to boot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kernel:
    """One way to boot one Debian kernel.

    name: the word on the command line; unique.
    package: the Debian package that depends on the kernel image.
    suite: the Debian suite that has the package, on the mirror this machine already uses.
    levels: page-table levels, 4 or 5 (whether the CPU has LA57).
    cmdline: kernel command-line options besides those that every boot needs.
    tests: what `test` runs there by default.
    """

    name: str
    package: str
    suite: str
    levels: int
    cmdline: tuple[str, ...] = ()
    tests: tuple[str, ...] = ("tests/live",)


# The last 128 MiB below 1920 are persistent memory, with no RAM above: so its frames are past the
# last frame of RAM, like those of a real device. (With --memory 2048, the default.)
PMEM = ("memmap=128M!1792M", "mem=1920M")
# The device memory tests, and of the others those that compare every number.
PMEM_TESTS = ("tests/live/test_device_memory.py", "tests/live/test_exact.py")


# The kernel that most is developed on; when the archive drops the package, take a later one.
BACKPORT = Kernel("6.18", "linux-image-6.18.15+deb13-amd64", "trixie-backports", 4)


def _debian(version: str, suite: str) -> tuple[Kernel, ...]:
    package = "linux-image-amd64"
    return (
        Kernel(version, package, suite, 4),
        Kernel(f"{version}-la57", package, suite, 5),
        Kernel(f"{version}-integrity", package, suite, 4, ("lockdown=integrity",)),
        Kernel(f"{version}-confidentiality", package, suite, 4, ("lockdown=confidentiality",)),
        Kernel(f"{version}-pmem", package, suite, 4, PMEM, PMEM_TESTS),
    )


KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (*_debian("6.1", "bookworm"), *_debian("6.12", "trixie"), BACKPORT)
}

# What `test --short` boots: each number of levels once, with different kernels.
SHORT: tuple[str, ...] = ("6.1", "6.12-la57")
