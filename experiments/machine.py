"""The machine that the figures were taken on, and the set-up of a new one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import chosen, commit, first_line, installed, memory_gib, processor

# apt-get's, for all targets; vmtest/packages.txt has those of the other kernels.
PACKAGES = ("gcc", "libc6-dev", "procps", "default-jdk-headless", "postgresql", "firefox-esr",
            "chromium", "util-linux", "mount", "kmod")
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
HERE = Path(__file__).parent


def describe() -> dict[str, str]:
    """Return the machine and the versions that matter, by name."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": f"{processor()}, {os.cpu_count()} CPUs",
        "memory": f"{memory_gib():.0f} GiB, transparent huge pages: {chosen(THP)}",
        "kernel": f"{platform.release()} {platform.machine()}",
        "pagewalk": f"{version('pagewalk')}, commit {commit()}",
        "python": f"{platform.python_version()}, numpy {version('numpy')},"
                  f" psutil {version('psutil')}",
        "packages": ", ".join(f"{name} {installed(name)}" for name in
                              ("libc6", "procps", "firefox-esr", "chromium", "postgresql"))
                    + f", {first_line(['java', '--version'])}",
    }


def setup() -> int:
    """Install what the experiments need besides pagewalk (Debian, root); returns the exit code."""
    kernels = [line for line in (HERE.parent / "vmtest/packages.txt").read_text().splitlines()
               if line and not line.startswith("#")]
    for command in (
        [str(HERE.parent / "scripts/apt-install"), *PACKAGES, *kernels],
        [sys.executable, "-m", "pip", "install", "--quiet", "--editable",
         f"{HERE.parent}[experiments]"],
    ):
        if code := subprocess.run(command, check=False).returncode:
            return code
    return 0
