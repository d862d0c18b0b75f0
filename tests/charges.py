"""Memory cgroups that are charged for something known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagewalk.kernel.structs.memcgs import Memcgs
from tests.machine import remove_group

CONTROLLER = Path("/sys/fs/cgroup/memory")
V1 = CONTROLLER.is_dir()
ROOT = CONTROLLER if V1 else Path("/sys/fs/cgroup")

# Joins the group, does what it is told, and says so.
MEMBER = """
import mmap, os, resource, sys
group, what, size = sys.argv[1:]
with open(group + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
if what == "anonymous":
    held = mmap.mmap(-1, int(size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    held[:] = b"x" * int(size)
elif what == "descriptors":
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(size) + 100,) * 2)
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(size))]
elif what.endswith("/"):
    for number in range(int(size)):
        os.close(os.open(f"{what}{number}", os.O_CREAT | os.O_WRONLY))
else:
    with open(what, "wb") as file:
        file.write(b"x" * int(size))
print("done", flush=True)
sys.stdin.read()
"""


@contextmanager
def member(group: Path, what: str, size: int) -> Iterator[None]:
    """Charge the group for ``what``, and hold it until the block ends.

    "anonymous" is memory of ``size`` bytes, "descriptors" are so many, a path is a file of so many
    bytes, a path that ends with a slash so many empty files in that directory.
    """
    command = [sys.executable, "-c", MEMBER, str(group), what, str(size)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "done\n"
            yield
        finally:
            process.kill()


@contextmanager
def inside(outer: Path) -> Iterator[Path]:
    """Make a group inside another, and remove it when the block ends."""
    control, group = outer / "cgroup.subtree_control", outer / "inner"
    if control.exists():
        control.write_text("+memory")
    group.mkdir()
    try:
        yield group
    finally:
        remove_group(group)


def row_of(groups: Memcgs, directory: Path) -> int:
    path = "/" + str(directory.relative_to(ROOT))
    return next(row for row, name in enumerate(groups.path) if name == path)
