"""Start a target, read its facts, stop it, and kill its whole family."""

import atexit
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.targets.catalogue import TARGETS, Target

HERE = Path(__file__).parent
# Far longer than any target takes to start (java: 2 s; KSM: 3 s), even on a busy machine.
PATIENCE = 120.0


class CannotProvoke(Exception):
    """Raised when a target reports that this kernel or machine cannot do what it provokes."""


@dataclass(frozen=True)
class Running:
    """One running target.

    pid: the main process. pids: the family, the main process first. facts: by region (or whatever
    else the target reports), {"pid", "start", "end", and counts of base pages}.
    """

    target: Target
    pid: int
    pids: tuple[int, ...]
    facts: dict[str, dict[str, Any]]
    process: subprocess.Popen[bytes]

    def tell(self, word: str) -> dict[str, Any]:
        """Send one command and return the answer; "exit" and "exec" return when they are done.

        The target must not be stopped: it could not answer.
        """
        assert self.process.stdin is not None
        exe = os.readlink(f"/proc/{self.pid}/exe") if word == "exec" else ""
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()
        if word == "exit":
            self.process.wait(PATIENCE)
            return {}
        if word == "exec":
            _wait(lambda: os.readlink(f"/proc/{self.pid}/exe") != exe, f"{self.pid} to exec")
            return {}
        return _read_line(self.process)

    def stop(self) -> None:
        """Stop the family and return when every thread of it has stopped."""
        stop(*self.pids)

    def resume(self) -> None:
        """Resume a stopped family."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@functools.cache
def build() -> Path:
    """Compile the zoo, once per run, and return the program's path.

    PAGEWALK_ZOO in the environment names one compiled earlier: in a guest it would take a minute.
    """
    if "PAGEWALK_ZOO" in os.environ:
        return Path(os.environ["PAGEWALK_ZOO"])
    folder = Path(tempfile.mkdtemp(prefix="zoo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return compile_zoo(folder / "zoo")


def compile_zoo(program: Path) -> Path:
    """Compile the zoo into a program at that path, and return the path."""
    if not shutil.which("cc"):
        raise RuntimeError("cannot compile the test targets: no cc; install gcc and libc6-dev")
    sources = [str(path) for path in sorted(HERE.glob("*.c"))]
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Wno-unused-parameter", "-pthread"]
    command += ["-o", str(program), *sources]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"cannot compile the test targets: {done.stderr}")
    return program


@contextmanager
def start(name: str, *args: object, stopped: bool = False) -> Iterator[Running]:
    """Run a target from TARGETS until the block ends; its family is then killed and reaped.

    args replace the target's own arguments: start("runs", 1025). With stopped=True every thread of
    the family is in state T. Raises CannotProvoke with the target's reason, and TimeoutError.
    """
    target = TARGETS[name]
    words = [target.args[0], *map(str, args)] if args else list(target.args)
    with tempfile.TemporaryDirectory(prefix="zoo-", dir=_disk()) as folder:
        process = subprocess.Popen(
            [str(build()), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
        )
        family = [process.pid]
        try:
            facts = _hear(process, target, family)
            running = Running(target, process.pid, tuple(family), facts, process)
            if stopped:
                running.stop()
            yield running
        finally:
            _end(process, family)


def stop(*pids: int) -> None:
    """Stop processes and return when every thread of them has stopped."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    # A zombie, or a leader that has exited before its threads, does not move either.
    _wait(lambda: set(_states(pids)) <= set("TZX"), f"{pids} to stop")


def asleep(pid: int, name: str) -> None:
    """Wait until a process has become the program ``name``, is fully loaded, and sleeps.

    Popen() returns after exec, when the program's libraries are still being mapped.
    """
    comm = name.encode()[:15]
    _wait(lambda: Path(f"/proc/{pid}/comm").read_bytes()[:-1] == comm, f"{pid} to be {name}")
    _wait(lambda: set(_states([pid])) == {"S"}, f"{name} to settle")


def _hear(process: subprocess.Popen[bytes], target: Target, family: list[int]) -> dict[str, Any]:
    # Fills family as it goes, so that all of a target that fails half-way is killed.
    if target.execs:
        zoo = str(build())
        _wait(lambda: os.readlink(f"/proc/{process.pid}/exe") != zoo, "exec")
        _wait(lambda: set(_states([process.pid])) == {"S"}, f"{target.name} to settle")
        return {}
    facts: dict[str, Any] = {}
    while "ready" not in facts:
        line = _read_line(process)
        if "cannot" in line:
            raise CannotProvoke(f"{target.name}: {line['cannot']}")
        if "joins" in line:
            family.append(line["joins"])
        else:
            facts |= line
    del facts["ready"]
    return facts


def _read_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    deadline = time.monotonic() + PATIENCE
    line = b""
    # Byte by byte from the descriptor: a buffered reader would hide lines from select.
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise TimeoutError(f"the target {process.args!r} printed nothing")
        byte = os.read(process.stdout.fileno(), 1)
        if not byte:
            raise RuntimeError(f"the target {process.args!r} exited: {process.wait(PATIENCE)}")
        line += byte
    answer: dict[str, Any] = json.loads(line)
    return answer


def _end(process: subprocess.Popen[bytes], family: list[int]) -> None:
    # The main process never reaps its children, so while it lives no pid of the family is reused;
    # once it is dead, the kernel has killed the others (PR_SET_PDEATHSIG).
    if process.poll() is None:
        for pid in reversed(family):
            os.kill(pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    process.wait(PATIENCE)
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()
    _wait(lambda: set(_states(family)) <= set("ZX"), "the family to end")


def _states(pids: list[int] | tuple[int, ...]) -> list[str]:
    # The state letter of every thread. The name before it may contain blanks and parentheses.
    states = []
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            for tid in os.listdir(f"/proc/{pid}/task"):
                with suppress(FileNotFoundError, ProcessLookupError):
                    text = Path(f"/proc/{pid}/task/{tid}/stat").read_text(errors="replace")
                    states.append(text.rpartition(") ")[2][0])
    return states


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.002)


@functools.cache
def _disk() -> str:
    # A folder whose files are on a disk, and so in the page cache: /tmp may be a tmpfs.
    for folder in (tempfile.gettempdir(), "/var/tmp", "."):
        command = ["stat", "-f", "-c", "%T", folder]
        kind = subprocess.run(command, check=False, capture_output=True, text=True)
        if kind.returncode == 0 and kind.stdout.strip() not in ("tmpfs", "ramfs"):
            return folder
    raise RuntimeError("no folder on a disk for the targets' files: set TMPDIR to one")
