"""The kernels that the live tests run on: a plain table, one row for each way to boot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kernel:
    """Describe one way to boot one Debian kernel.

    name: the word on the command line; unique.
    package: the Debian package that depends on the kernel image.
    suite: the Debian suite that has the package, on the mirror this machine already uses.
    levels: page-table levels, 4 or 5 (the CPU is given LA57 or not).
    cmdline: kernel command-line options beside the ones every boot needs.
    """

    name: str
    package: str
    suite: str
    levels: int
    cmdline: tuple[str, ...] = ()


def _debian(version: str, suite: str) -> tuple[Kernel, ...]:
    package = "linux-image-amd64"
    return (
        Kernel(version, package, suite, 4),
        Kernel(f"{version}-la57", package, suite, 5),
        Kernel(f"{version}-integrity", package, suite, 4, ("lockdown=integrity",)),
        Kernel(f"{version}-confidentiality", package, suite, 4, ("lockdown=confidentiality",)),
    )


KERNELS: dict[str, Kernel] = {
    kernel.name: kernel for kernel in (*_debian("6.1", "bookworm"), *_debian("6.12", "trixie"))
}

# What `test --short` boots: each kernel once, each number of levels once.
SHORT: tuple[str, ...] = ("6.1", "6.12-la57")
