"""A fork in mid-walk is reported, and nothing else is taken for one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import pagewalk
from pagewalk.kernel.open import read_btf
from tests.live.bracket import working_sources

# Obeys commands, one word per line, and acknowledges them.
PROGRAM = """
import ctypes, mmap, os, subprocess, sys, threading

def fork():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)

def thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()

area = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
libc = ctypes.CDLL(None)
ACTS = {
    "nothing": lambda: None,
    "fork": fork,
    "fork and exec": lambda: subprocess.run(["true"], preexec_fn=lambda: None, check=True),
    "vfork and exec": lambda: subprocess.run(["true"], check=True),
    "thread": thread,
    "map and unmap": lambda: mmap.mmap(-1, 1 << 21).close(),
    "touch": lambda: area.write(b"x" * (1 << 20)) and area.seek(0),
    "mlockall": lambda: libc.mlockall(3),
}
for word in ["thread", "fork", "vfork and exec"]:  # what they need is mapped now
    ACTS[word]()
print("ready", flush=True)
for line in sys.stdin:
    ACTS[line.strip()]()
    print("done", flush=True)
"""
FORKS = ("fork", "fork and exec")
OTHERS = ("nothing", "vfork and exec", "thread", "map and unmap", "touch", "mlockall")
TABLES = [name for name in working_sources() if name != "procfs"]

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not read_btf().has("vm_area_struct", "vm_lock_seq"), reason="not told before 6.5"
    ),
]


@pytest.fixture
def told() -> Iterator[tuple[int, Callable[[str], None]]]:
    words = [sys.executable, "-Sc", PROGRAM]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"

        def tell(word: str) -> None:
            assert child.stdin is not None and child.stdout is not None
            print(word, file=child.stdin, flush=True)
            assert child.stdout.readline() == "done\n"

        yield child.pid, tell
        child.kill()


@pytest.mark.parametrize("source", TABLES)
@pytest.mark.parametrize("act", [*FORKS, *OTHERS])
def test_only_a_fork_is_reported_as_a_fork(
    act: str, source: str, told: tuple[int, Callable[[str], None]]
) -> None:
    pid, tell = told
    for _ in range(3):
        walked = pagewalk.walk(pid, pagewalk.Sums, source=source)
        tell(act)
        pagewalk.by_vma(walked)
        said = [why for why in walked.outcome.partial if "the process forked" in why]
        assert len(said) == (act in FORKS)
