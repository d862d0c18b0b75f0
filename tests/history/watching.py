"""A real `pagewalk run`: its command says when it stands still, and ends when it is told to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGEWALK = (sys.executable, "-m", "pagewalk")
PATIENCE = 120.0  # seconds: for what hangs, not for a slow machine
ENOUGH = 6
SIGTIMEDWAIT = {"x86_64": 128, "aarch64": 137, "riscv64": 137}


@dataclass(frozen=True)
class Run:
    """`pagewalk run` and the folder that it writes to; its command has printed a line."""

    process: subprocess.Popen[bytes]
    folder: Path
    said: bytes

    def looked_at(self) -> None:
        """Wait until a whole look has begun and ended after this was called."""
        # It waits for signals between two looks. It reads to look, and when a child has ended, of
        # which there are few.
        deadline = time.monotonic() + PATIENCE
        seen = list[int]()
        while len(seen) < ENOUGH:
            if time.monotonic() > deadline:
                raise TimeoutError("nothing is looked at")
            reads = self.reads()
            if self.waits() and (not seen or reads > seen[-1]):
                seen.append(reads)
            time.sleep(0.001)

    def waits(self) -> bool:
        said = Path(f"/proc/{self.process.pid}/syscall").read_text().split()
        return said[0] == str(SIGTIMEDWAIT[os.uname().machine])

    def reads(self) -> int:
        pid = self.process.pid
        said = Path(f"/proc/{pid}/task/{pid}/io").read_text()  # another thread may import
        return int(re.findall(r"(?m)^syscr: (\d+)$", said)[0])

    def say(self, text: bytes = b"\n") -> None:
        """Write to the command's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def kill(self, *pids: int) -> None:
        """End the command's processes so that none is looked at again."""
        deadline = time.monotonic() + PATIENCE
        self.process.send_signal(signal.SIGSTOP)
        while not (stopped(self.process.pid) and self.waits()):  # not in the middle of a look
            if stopped(self.process.pid):
                self.process.send_signal(signal.SIGCONT)
                time.sleep(0.001)
                self.process.send_signal(signal.SIGSTOP)
            if time.monotonic() > deadline:
                raise TimeoutError("it is never between two looks")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        while any(alive(pid) for pid in pids):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{pids} do not end")
            time.sleep(0.001)
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> tuple[int, Any]:
        """Close the command's input, wait for the end, and return the exit code and the report."""
        self.process.communicate(None, PATIENCE)
        return self.process.returncode, json.loads((self.folder / "report").read_text())


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2][0] == "T"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def running(command: Sequence[str], *options: str, before: Sequence[str] = (),
            program: Sequence[str] = PAGEWALK) -> Iterator[Run]:
    """Run ``command`` in `pagewalk run` with ``options``; yield when it has printed a line."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        os.chmod(folder, 0o777)  # for an ordinary user
        process = subprocess.Popen(
            [*before, *program, "run", "--every", "0.01", "--format", "json", "--output",
             f"{folder}/report", *options, "--", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stdout is not None
            yield Run(process, Path(folder), process.stdout.readline())
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate(None, PATIENCE)


def budget(report: Any, measure: str) -> Any:
    """Return what a report says of one measure."""
    return next(row for row in report["budgets"] if row["measure"] == measure)


def kernel_says(pid: int) -> dict[str, int]:
    """Return USS, PSS, RSS and swap of a process as its smaps_rollup has them, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(errors="surrogateescape")
    said = {name: int(kib) << 10 for name, kib in re.findall(r"(?m)^(\w+): +(\d+) kB$", text)}
    return {"uss": said["Private_Clean"] + said["Private_Dirty"], "pss": said["Pss"],
            "rss": said["Rss"], "swap": said["Swap"]}
