"""Run pagewalk in a PID namespace whose /proc is its parent's.

python -m tests.live.inside PID PROGRAM starts PROGRAM there as process PID (0: any), and then
runs commands: for each line of JSON with a command's words, it prints a line with the outcome.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.live.command import PAGEWALK, PATIENCE, Ran, checked


def clone_with_pid(pid: int, *words: str) -> int:
    """Start a program with a chosen pid (clone3 with set_tid, since 5.5); return its pid."""
    wanted = (ctypes.c_int * 1)(pid)
    fields = [0] * 11  # struct clone_args of include/uapi/linux/sched.h
    fields[4] = signal.SIGCHLD
    if pid:
        fields[8], fields[9] = ctypes.addressof(wanted), 1
    args = (ctypes.c_uint64 * 11)(*fields)
    # PyDLL keeps the interpreter's lock: the child has it too, and can continue at once.
    libc = ctypes.PyDLL(None, use_errno=True)
    started = int(libc.syscall(435, ctypes.byref(args), ctypes.sizeof(args)))
    if started == 0:
        os.execlp(words[0], *words)
    assert started == pid or not pid, os.strerror(ctypes.get_errno())
    return started


@dataclass(frozen=True)
class Inside:
    """A PID namespace without a /proc of its own, and the program that runs in it.

    ``pid`` is the program's number in the namespace, ``listed`` the one in this /proc.
    """

    pid: int
    listed: int
    process: subprocess.Popen[bytes]

    def pagewalk(self, *args: object) -> Ran:
        """Run pagewalk in the namespace."""
        assert self.process.stdin is not None
        words = [*PAGEWALK, *map(str, args)]
        self.process.stdin.write(json.dumps(words).encode() + b"\n")
        self.process.stdin.flush()
        return checked(*answer(self.process))


def answer(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    return said["code"], said["out"].encode(), said["err"].encode()


@contextmanager
def inside(pid: int, program: Path) -> Iterator[Inside]:
    """Start ``program`` as process ``pid`` of a new PID namespace, until the block ends."""
    words = [sys.executable, "-m", "tests.live.inside", str(pid), str(program)]
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            yield Inside(said["pid"], said["listed"], process)
        finally:
            process.kill()


def listed(pid: int) -> int:
    """Return the number under which /proc lists process ``pid`` of our own namespace."""
    fd = os.pidfd_open(pid)
    rows = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    os.close(fd)
    return next(int(row.split()[1]) for row in rows if row.startswith("Pid:"))


def asleep(number: int, program: str) -> bool:
    state = Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2][0]
    return state == "S" and os.readlink(f"/proc/{number}/exe") == program


def main() -> None:
    pid = clone_with_pid(int(sys.argv[1]), sys.argv[2], "3600")
    number = listed(pid)
    while not asleep(number, sys.argv[2]):
        time.sleep(0.002)
    print(json.dumps({"pid": pid, "listed": number}), flush=True)
    for line in sys.stdin:
        done = subprocess.run(
            json.loads(line), check=False, capture_output=True, text=True, timeout=PATIENCE
        )
        print(json.dumps({"code": done.returncode, "out": done.stdout, "err": done.stderr}),
              flush=True)


if __name__ == "__main__":
    main()
