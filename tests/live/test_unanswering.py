"""A file system that never answers, mounted where state files would be, keeps nobody waiting."""

from __future__ import annotations

import os
import sys

import pytest

from tests.live.command import Ran, pagewalk

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no FUSE"),
]

# Mounts a FUSE on the first argument whose requests are never read, runs a command, and tells its
# exit code; 99 if it hangs.
SILENT = """
import ctypes, os, subprocess, sys
point, *command = sys.argv[1:]
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"silent", point.encode(), b"fuse", 0, options.encode()):
    raise OSError(ctypes.get_errno(), point)
try:
    sys.exit(subprocess.run(command, timeout=100).returncode)
except subprocess.TimeoutExpired:
    sys.exit(99)
"""


def beside_silence(*words: object) -> Ran:
    return pagewalk(
        *words, before=("unshare", "--mount", sys.executable, "-I", "-S", "-c", SILENT, "/home"))


@pytest.mark.parametrize("words", [
    ("cgroups",), ("ram", "--files"), ("ram", "--slab"), ("explain", "/"),
], ids=" ".join)  # fmt: skip
def test_a_command_that_names_containers_ends(words: tuple[str, ...]) -> None:
    ran = beside_silence(*words)
    # 3: a process may refuse everybody; 4: on a busy machine something may be unexplained
    assert ran.code in (0, 3, 4), ran.err


def test_a_target_that_is_not_found_says_what_was_not_looked_at() -> None:
    ran = beside_silence("explain", "no-such-thing")
    assert ran.code == 2
    assert "not all names are known: did not look below /home: a file system of type fuse may" \
        " never answer" in ran.err
    ran = beside_silence("explain", "/home/nobody/thing")
    assert ran.code == 2 and "no memory cgroup is called that either" in ran.err
