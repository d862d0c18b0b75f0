"""Describe the machine that the figures were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def describe() -> dict[str, str]:
    """Return the machine, its load and the versions that matter, by name."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": f"{processor()}, {os.cpu_count()} CPUs",
        "memory": f"{memory_gib():.0f} GiB",
        "kernel": f"{platform.release()} {platform.machine()}",
        "transparent huge pages": chosen(HUGE_PAGES),
        "load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "pagewalk": f"{version('pagewalk')}, commit {commit()}",
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "psutil": version("psutil"),
        "smem": installed("smem"),
        "compiler": first_line(["cc", "--version"]),
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def chosen(path: Path) -> str:
    # The setting in force is the one in brackets, as in "always [madvise] never".
    try:
        return path.read_text().partition("[")[2].partition("]")[0]
    except OSError:
        return "none"


def commit() -> str:
    found = first_line(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"])
    return found or "unknown"


def installed(package: str) -> str:
    return first_line(["dpkg-query", "-W", "-f", "${Version}", package]) or "missing"


def first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0] if done.returncode == 0 else ""


def setup() -> int:
    """Install what the measures need besides pagewalk; returns the exit code."""
    packages = ["gcc", "libc6-dev", "procps", "smem", "atop"]
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    for command in (
        ["apt-get", "update"],
        install,
        [sys.executable, "-m", "pip", "install", "psutil>=6", "pytest>=8.3"],
    ):
        if code := subprocess.run(command, check=False).returncode:
            return code
    return 0
