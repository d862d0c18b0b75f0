"""The recipes of docs/recipes, run as printed on a process that has the very problem.

``python -m tests.recipes NAME`` prints what each command of a page says, as it would be on a
terminal of 80 columns: the pages' screens are from there.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from pagewalk.proc.cgroups import find_hierarchy
from tests.documents import ROOT, Block, blocks, prose
from tests.machine import memory_cgroup

FOLDER = ROOT / "docs/recipes"
PROGRAMS = Path(__file__).parent
MIB = 1 << 20
PYTHON = sys.executable
PATIENCE = 240.0  # seconds: for a command that hangs
BETWEEN = "\x1e"


@dataclass(frozen=True)
class Ran:
    """A block of a page: what it printed, and the exit code of its last command."""

    block: Block
    out: str
    code: int


def page(name: str) -> Path:
    """Return the page of a recipe."""
    return FOLDER / f"{name}.md"


def version() -> str:
    """Return which cgroups hold this machine's memory controller: v1 or v2."""
    return "v1" if Path("/sys/fs/cgroup/memory").is_dir() else "v2"


def commands(name: str) -> list[Block]:
    """Return the blocks of commands of a page, without those for the other version of cgroups."""
    return [b for b in blocks(page(name), "sh") if not b.words[1:] or version() in b.words]


def run(name: str, **variables: object) -> list[Ran]:
    """Run the commands of a page in one shell, as its reader would, with ``variables`` set."""
    return run_blocks(commands(name), **variables)


def run_blocks(found: list[Block], **variables: object) -> list[Ran]:
    """Run blocks of commands in one shell; what they write to stderr must not be a traceback."""
    script = "".join(f"{b.text}printf '%s%s%s' '{BETWEEN}' $? '{BETWEEN}'\n" for b in found)
    with tempfile.TemporaryDirectory(prefix="pagewalk-") as folder:  # for what they write
        done = subprocess.run(
            ["bash", "-c", script], check=True, capture_output=True, text=True, timeout=PATIENCE,
            env=environment(variables), cwd=folder,
        )
    assert "Traceback" not in done.stderr, done.stderr
    parts = done.stdout.split(BETWEEN)
    return [Ran(block, out, int(code))
            for block, out, code in zip(found, parts[::2], parts[1::2], strict=False)]


def environment(variables: Mapping[str, object]) -> dict[str, str]:
    """Return the environment of a page's commands, whose ``pagewalk`` is the one tested."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {name: str(value) for name, value in variables.items()} | {"PATH": path}


def explained(name: str) -> list[str]:
    """Return what a page's lists explain: the words in bold that an item begins with."""
    return [re.sub(r"\s+", " ", words)
            for words in re.findall(r"^- \*\*([^*]+)\*\*", prose(page(name)), re.MULTILINE)]


def started(*words: object, **options: Any) -> AbstractContextManager[dict[str, Any]]:
    """Start a Python program of this folder; the options are those of ``running``."""
    return running(PYTHON, "-u", *words, **options)


@contextmanager
def running(
    *words: object, group: Path | None = None, **environ: str
) -> Iterator[dict[str, Any]]:
    """Start a program in this folder, alone in a memory cgroup if there is one.

    Yields what it said in JSON when it was ready; it and its children are killed at the end.
    """
    command = list(map(str, words))
    if group is not None:
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *command]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               cwd=PROGRAMS, env=os.environ | environ, start_new_session=True)
    try:
        assert process.stdout is not None
        yield {"PID": process.pid, **json.loads(process.stdout.readline())}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        # A JVM that was asked has a socket, which it removes at its end, unless it is killed.
        Path(f"/tmp/.java_pid{process.pid}").unlink(missing_ok=True)


def rss(_: Path) -> AbstractContextManager[dict[str, Any]]:
    """Run a service that has freed most of what it allocated."""
    return started("reports.py")


@contextmanager
def workers(_: Path, *words: str) -> Iterator[dict[str, Any]]:
    """Run a service with four workers, one of which has collected garbage."""
    with started("shop.py", *words) as said:
        collect(said["PORT"], said["WORKER"])
        yield said


def collect(port: int, worker: int) -> None:
    """Send requests until that worker has answered one; whoever answers collects garbage."""
    while json.load(urlopen(f"http://127.0.0.1:{port}/gc")) != worker:
        pass


def model(folder: Path) -> AbstractContextManager[dict[str, Any]]:
    """Run a program that maps a large file, of which it has read a quarter."""
    return started("answers.py", folder / "model.gguf", os.environ.get("MODEL_MIB", "64"))


@contextmanager
def container(_: Path) -> Iterator[dict[str, Any]]:
    """Run a container with a limit, whose charge is a deleted log, after one that was removed."""
    # /tmp may be a tmpfs, whose files are no page cache of a disk.
    with tempfile.TemporaryDirectory(prefix="pagewalk-", dir="/var/tmp") as folder:
        write = 'head -c 16M /dev/zero > "$0" && echo "{}"'
        with memory_cgroup("job") as job, running(
            "sh", "-c", write, f"{folder}/report.csv", group=job
        ):
            pass
        with memory_cgroup("web") as group:
            limit(group, 128 * MIB)
            name, before = (f"/{one.relative_to(find_hierarchy().mount)}" for one in (group, job))
            with started("logger.py", f"{folder}/app.log", 64, group=group) as said:
                yield {"CONTAINER": name, "JOB": before, **said}


def limit(group: Path, size: int) -> None:
    """Set the limit of a memory cgroup, of memory and swap together where there is one."""
    for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"):
        with suppress(OSError):
            (group / name).write_text(str(size))


@contextmanager
def killed(folder: Path) -> Iterator[dict[str, Any]]:
    """Run a container whose memory is mostly a file in shared memory, and kill one like it."""
    with memory_cgroup("killed") as group:
        limit(group, 96 * MIB)
        with suppress(OSError):
            (group / "memory.swap.max").write_text("0")
        with started("spool.py", 40, group=group) as said:
            # Its twin has no room: the kernel ends the larger of the two, which is this one.
            with suppress(json.JSONDecodeError), started("spool.py", 0, 64, group=group):
                raise AssertionError("there was room for both")
            kill_armed(folder)
            yield {"FOLDER": folder, **said}


def kill_armed(folder: Path) -> None:
    """Have a program in a group of its own killed at its limit, while a recorder is armed."""
    with memory_cgroup("armed") as group:
        limit(group, 32 * MIB)
        with suppress(OSError):
            (group / "memory.swap.max").write_text("0")
        with (armed(group, folder), suppress(json.JSONDecodeError),
              started("spool.py", 0, 64, group=group)):
            raise AssertionError("there was room for it")


@contextmanager
def armed(group: Path, folder: Path) -> Iterator[None]:
    """Arm a recorder of a group in the block, and end it when it has recorded a kill."""
    path = f"/{group.relative_to(find_hierarchy().mount)}"
    words = [PYTHON, "-m", "pagewalk", "record", "--armed", path, "-o", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            while b": armed: " not in process.stderr.readline():
                assert process.poll() is None
            yield
            until = time.monotonic() + PATIENCE
            while not list(folder.glob("*-kill-*.parquet")):
                assert time.monotonic() < until
                time.sleep(0.05)
        finally:
            process.terminate()


@contextmanager
def sum_of_rss(_: Path) -> Iterator[dict[str, Any]]:
    """Run PostgreSQL with a dozen clients in a cgroup whose limit is less than their RSS in all."""
    from tests.live.programs import postgresql

    # Another user's server cannot get to our temporary folder.
    with tempfile.TemporaryDirectory(prefix="pagewalk-", dir="/var/tmp") as folder, \
            memory_cgroup("sum") as group:
        os.chmod(folder, 0o755)
        limit(group, 256 * MIB)
        with postgresql(group, Path(folder)) as family:
            yield {"PID": family.pid, "LIMIT": 256 * MIB}


def full(_: Path) -> AbstractContextManager[dict[str, Any]]:
    """Run a program that keeps a file in RAM which it does not map."""
    return started("spool.py", 160)


def grew(_: Path) -> AbstractContextManager[dict[str, Any]]:
    """Run a service that grows while it is looked at."""
    return started("grows.py")


def java(_: Path) -> AbstractContextManager[dict[str, Any]]:
    """Run a JVM most of whose memory is outside the Java heap."""
    options = ("-Xmx64m", "-XX:MaxDirectMemorySize=256m", "-XX:NativeMemoryTracking=summary")
    return running("java", *options, "Direct.java")


PROBLEMS: dict[str, Callable[[Path], AbstractContextManager[dict[str, Any]]]] = {
    "rss": rss,
    "java": java,
    "grew": grew,
    "workers": workers,
    "sum": sum_of_rss,
    "model": model,
    "killed": killed,
    "container": container,
    "full": full,
}
