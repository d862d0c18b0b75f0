"""Check that a run of live tests leaves nothing behind: settings, swap, processes, mounts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.machine import MM, ZSWAP, alone, is_free

# In the environment of every process that this run starts, and of their children.
MARK = "PAGEWALK_TEST_RUN"
BLOCK = Path("/sys/block")
# A killed process may take a moment to end.
PATIENCE = 60.0


def settings_now() -> dict[str, str]:
    """Return every setting that a test may change, by path, and the swap devices."""
    paths = [*(MM / "ksm").glob("*"), *(MM / "transparent_hugepage").rglob("*")]
    paths += [*(MM / "hugepages").rglob("nr_*"), Path("/proc/sys/vm/hugetlb_optimize_vmemmap")]
    paths.append(ZSWAP)
    found = {}
    for path in paths:
        # The other files in these folders are counters.
        if path.is_file() and path.stat().st_mode & 0o600 == 0o600:
            with suppress(OSError):
                found[str(path)] = path.read_text().strip()
    swaps = Path("/proc/swaps").read_text().splitlines()[1:]
    found["/proc/swaps"] = " ".join(sorted(line.split()[0] for line in swaps))
    found["/sys/block/zram*"] = " ".join(sorted(filter(has_size, map(str, BLOCK.glob("zram*")))))
    return found


def has_size(zram: str) -> bool:
    # Loading the module creates a device of size 0, which does no harm.
    with suppress(OSError):
        return int(Path(zram, "disksize").read_text()) > 0
    return False


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return a line for each setting that has changed."""
    return [
        f"{path}: {before.get(path)}, now {after.get(path)}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def processes(run: str) -> list[str]:
    """Return the processes that a run has started and that still exist, except zombies."""
    mark, found = f"{MARK}={run}".encode(), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found.append(f"process {pid}: {b' '.join(words).decode(errors='replace')}")
    return found


def lasting(run: str) -> list[str]:
    """Return the processes of a run that do not end."""
    deadline = time.monotonic() + PATIENCE
    while (found := processes(run)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def sockets(folder: Path = Path("/tmp")) -> set[str]:
    """Return the sockets that JVMs have left, which they do if they are killed."""
    return {str(path) for path in folder.glob(".java_pid*")
            if not Path(f"/proc/{path.name.removeprefix('.java_pid')}").exists()}


def mounts(below: Path) -> list[str]:
    """Return the mount points under a folder."""
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return [f"mount {line.split()[4]}" for line in lines if line.split()[4].startswith(f"{below}/")]


@contextmanager
def nothing(folder: Path) -> Iterator[None]:
    """Fail if the block changed a setting, or left a process, a socket, or a mount in ``folder``.

    While another test run is active, the settings are its business and are not checked.
    """
    run = os.environ[MARK] = str(os.getpid())
    before, old = settings_now() if is_free() else None, sockets()
    try:
        yield
    finally:
        left = mounts(folder) + changes_since(before) + lasting(run) + staying(old)
        del os.environ[MARK]
    assert left == [], f"the tests left something behind: {left}"


def staying(old: set[str]) -> list[str]:
    """Return the sockets of JVMs that were not there before; who killed one removes it soon."""
    deadline = time.monotonic() + PATIENCE
    while (new := sockets() - old) and time.monotonic() < deadline:
        time.sleep(0.05)
    return sorted(new)


def changes_since(before: dict[str, str] | None) -> list[str]:
    """Return what has changed, unless another test run is active now or was then."""
    if before is None or not is_free():
        return []
    with alone():
        return changed(before, settings_now())
