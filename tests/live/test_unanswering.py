"""What never answers keeps nobody waiting: a file system, a process whose lock is held."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.bracket import working_sources
from tests.live.command import PAGEWALK, Ran, pagewalk

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


# Mounts a FUSE that answers everything except a read, on the first argument. One process reads a
# page of a file there out of the memory of another, and so holds its mmap_lock; that one waits to
# map something, and everybody else waits behind it (rwsem). Prints the number of that process.
STUCK = """
import ctypes, mmap, os, struct, sys, threading, time
INIT, LOOKUP, GETATTR, OPEN, READ, ENOSYS = 26, 1, 3, 14, 15, 38
point = sys.argv[1]
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"stuck", point.encode(), b"fuse", 0, options.encode()):
    raise OSError(ctypes.get_errno(), point)
asked = threading.Event()

def attributes(node):
    mode = 0o40755 if node == 1 else 0o100644
    return struct.pack("<6Q10I", node, 4096, 8, *[0] * 6, mode, 1, 0, 0, 0, 4096, 0)

ANSWERS = {
    INIT: lambda node: struct.pack("<4I2H2I2H8I", 7, 31, 65536, 0, 16, 12, 65536, 1, *[0] * 10),
    LOOKUP: lambda node: struct.pack("<4Q2I", 2, 0, 3600, 3600, 0, 0) + attributes(2),
    GETATTR: lambda node: struct.pack("<Q2I", 3600, 0, 0) + attributes(node),
    OPEN: lambda node: struct.pack("<Q2I", 1, 0, 0),
}

def serve():
    while True:
        _, what, unique, node = struct.unpack_from("<2I2Q", os.read(fuse, 1 << 18))
        if what == READ:
            asked.set()
            continue
        body = ANSWERS[what](node) if what in ANSWERS else b""
        error = 0 if what in ANSWERS else -ENOSYS
        os.write(fuse, struct.pack("<IiQ", 16 + len(body), error, unique) + body)

threading.Thread(target=serve, daemon=True).start()
file = os.open(point + "/file", os.O_RDONLY)
hear, tell = os.pipe()
go, start = os.pipe()
children = [os.fork()]
if not children[0]:
    os.close(fuse)
    page = mmap.mmap(file, 4096, prot=mmap.PROT_READ)
    (line,) = [line for line in open("/proc/self/maps") if "/file" in line]
    os.write(tell, line.partition("-")[0].encode())
    os.read(go, 1)
    mmap.mmap(-1, 4096)
    os._exit(0)
address = int(os.read(hear, 32), 16)
children.append(os.fork())
if not children[1]:
    os.close(fuse)
    os.pread(os.open(f"/proc/{children[0]}/mem", os.O_RDONLY), 1, address)
    os._exit(0)
os.close(file)  # or closing it at the end would wait for us to answer
asked.wait()
os.write(start, b"1")
while open(f"/proc/{children[0]}/stat").read().rpartition(")")[2].split()[0] != "D":
    time.sleep(0.01)
print(children[0], flush=True)
sys.stdin.read()
for child in children:
    os.kill(child, 9)
os._exit(0)  # closes the file system, which lets everybody go
"""


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the number of a process whose lock nobody gets."""
    words = ["unshare", "--mount", sys.executable, "-I", "-S", "-c", STUCK,
             str(tmp_path_factory.mktemp("stuck"))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        yield int(process.stdout.readline())
        process.stdin.close()


@pytest.mark.skipif("ebpf" not in working_sources(), reason="every other way takes the lock")
@pytest.mark.parametrize("words", [
    ("top", "--once"), ("share", "--all"), ("processes",), ("overview",), ("cgroups",),
    ("show", "{}"), ("maps", "{}"), ("pages", "{}"), ("record", "{}", "-o", "{}/a.pagewalk"),
], ids=" ".join)  # fmt: skip
def test_a_process_whose_lock_is_held_is_looked_at_all_the_same(
    words: tuple[str, ...], stuck: int, tmp_path: Path
) -> None:
    """Not by its command line, which is read under that lock."""
    given = [word.replace("{}/", f"{tmp_path}/").format(stuck) for word in words]
    ran = subprocess.run([*PAGEWALK, *given], capture_output=True, text=True, timeout=100,
                         check=False)
    assert ran.returncode in (0, 3), ran.stderr
