"""Programs that people run as several processes, each started in a memory cgroup of its own.

PROGRAMS has a context manager for each: it takes the cgroup and an empty folder on a disk, and
yields a Family whose processes have done some work. All of them are killed at its end.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from experiments.programs import orphans_come_to_us
from experiments.targets.browsers import CHROMIUM_FLAGS
from experiments.targets.servers import newest_server

from tests.machine import MachineLacks

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds: for a program that hangs, not for a slow machine
MIB = 1 << 20
BACKENDS, WORKERS, LOADERS = 12, 4, 3
# A scan of a table larger than a quarter of the buffers uses only 256 KiB of them.
BUFFERS, ROWS, WIDTH = 64, 60_000, 200
KEYS, WRITTEN = 200_000, 5_000
LOADED = 48 * MIB


class Family(NamedTuple):
    """A program: its cgroup and its first process, and what it has workers for.

    ``workers`` returns those that have all done the same work; ``one_more`` starts another and
    returns when it has done it too. ``shared`` is shared memory that stays when all are killed.
    """

    group: Path
    pid: int
    workers: Callable[[], set[int]] = set
    one_more: Callable[[], object] | None = None
    shared: Path | None = None

    @property
    def pids(self) -> list[int]:
        """Return the processes of the cgroup, the first process first."""
        return sorted(members(self.group), key=lambda pid: (pid != self.pid, pid))


def members(group: Path) -> list[int]:
    """Return the processes of a cgroup."""
    return [int(line) for line in (group / "cgroup.procs").read_text().split()]


@contextmanager
def running(group: Path, *words: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a cgroup until the block ends; whatever runs there is then killed."""
    if not shutil.which(str(words[0])):
        raise MachineLacks(f"{words[0]}: install the packages in scripts/test-packages.txt")
    enter = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL,
               "stderr": subprocess.DEVNULL, "start_new_session": True} | options
    with orphans_come_to_us():
        process = subprocess.Popen([*enter, *map(str, words)], **options)
        try:
            yield process
        finally:
            end(group, process)


def end(group: Path, process: subprocess.Popen[bytes]) -> None:
    """Kill all processes of a cgroup, and reap them."""
    deadline = time.monotonic() + PATIENCE
    while left := members(group):
        assert time.monotonic() < deadline, f"{left} do not end"
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:  # those that were ours, or have become it when their parent ended
            with suppress(ChildProcessError):
                if pid != process.pid:
                    os.waitpid(pid, os.WNOHANG)
        time.sleep(0.002)
    with process:
        process.kill()


def wait(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; what it raises as OSError means not yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError, http.client.HTTPException):
            if condition():
                return
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.01)


def children(pid: int) -> set[int]:
    """Return the children of a process's first thread."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def heard(process: subprocess.Popen[bytes]) -> Any:
    """Return the next line of JSON that a program says."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{process.args!r} ended: {process.wait(PATIENCE)}"
    return json.loads(line)


# ---- PostgreSQL


@contextmanager
def postgresql(group: Path, folder: Path) -> Iterator[Family]:
    """Run a server with 64 MiB of shared buffers, and a dozen backends that have read a table."""
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    programs, path = newest_server(), os.environ["PATH"]
    become = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "env", "-i",
              f"PATH={path}", "LC_ALL=C")
    data = folder / "data"
    subprocess.run([*become, programs / "initdb", "-A", "trust", "-N", "-D", data], check=True,
                   cwd=folder, stdout=subprocess.DEVNULL)
    options = {"listen_addresses": "", "shared_buffers": f"{BUFFERS}MB", "autovacuum": "off",
               "max_parallel_workers_per_gather": 0, "fsync": "off", "huge_pages": "off",
               # In files of its folder: what is in /dev/shm would stay there when it is killed.
               "dynamic_shared_memory_type": "mmap"}
    words = [*become, programs / "postgres", "-D", data, "-k", folder]
    words += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    with running(group, *words, cwd=folder) as server, ExitStack() as clients:
        ready = [programs / "pg_isready", "-q", "-h", folder]
        wait(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL to listen")

        def ask(psql: subprocess.Popen[bytes], *lines: str) -> int:
            assert psql.stdin is not None
            psql.stdin.write("".join(f"{line};\n" for line in lines).encode())
            psql.stdin.flush()
            return int(heard(psql))

        def client() -> subprocess.Popen[bytes]:
            psql = clients.enter_context(subprocess.Popen(
                ["psql", "-XqAt", "-h", folder, "-U", "postgres"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE))
            clients.callback(psql.kill)
            return psql

        def backend() -> None:
            psql = client()
            assert ask(psql, "select sum(length(name)) from items") == WIDTH * ROWS
            backends.add(ask(psql, "select pg_backend_pid()"))

        backends: set[int] = set()
        first = client()
        ask(first, f"create table items as select i, repeat('x', {WIDTH}) as name"
            f" from generate_series(1, {ROWS}) i", "vacuum analyze items", "select 1")
        first.communicate()
        for _ in range(BACKENDS):
            backend()
        yield Family(group, server.pid, lambda: backends, backend)


# ---- Redis


@contextmanager
def redis(group: Path, folder: Path) -> Iterator[Family]:
    """Run a server that saves its data in the background while keys are written to."""
    place = folder / "redis.sock"
    options = {"port": 0, "unixsocket": place, "save": "", "dir": folder, "daemonize": "no",
               "enable-debug-command": "yes", "loglevel": "warning",
               # Microseconds for each key: it saves for as long as it is looked at.
               "rdb-key-save-delay": 10_000}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with running(group, "redis-server", *words) as server:
        with socket.socket(socket.AF_UNIX) as client:
            wait(lambda: not client.connect_ex(str(place)), "Redis to listen")
            client.settimeout(PATIENCE)
            answers = client.makefile("rb")

            def ask(*lines: str) -> None:
                client.sendall("".join(f"{line}\r\n" for line in lines).encode())
                for line in lines:
                    said = answers.readline()
                    assert said.startswith(b"+"), (line, said)

            ask(f"DEBUG POPULATE {KEYS} key 200", "BGSAVE")
            # Pages all over what was inherited.
            ask(*(f"SET key:{key} {'w' * 200}" for key in range(0, KEYS, KEYS // WRITTEN)))
        yield Family(group, server.pid)


# ---- a pre-fork server

SHOP = '''
import gc, json, os
PRICES = {f"item-{n}": {"id": n, "tags": [n % 7, n % 11]} for n in range(100_000)}
def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/collect":
        gc.collect()
    return [json.dumps(os.getpid()).encode()]
'''


@contextmanager
def gunicorn(group: Path, folder: Path, *, freeze: bool = False) -> Iterator[Family]:
    """Run gunicorn, which loads the data before it forks; each worker has collected garbage."""
    place = folder / "shop.sock"
    (folder / "shop.py").write_text(SHOP)
    hook = "import gc\ndef when_ready(server):\n    gc.freeze()\n" if freeze else ""
    (folder / "settings.py").write_text(hook)
    words = ("gunicorn", "--config", "settings.py", "--workers", WORKERS, "--preload", "--bind",
             f"unix:{place}", "--worker-tmp-dir", folder, "--log-level", "critical",
             # A worker that is stopped is not to be killed for that.
             "--timeout", 0, "shop:application")
    with running(group, *words, cwd=folder) as server:
        collected: set[int] = set()

        def collect(pids: set[int]) -> None:
            while pids - collected:
                collected.add(get(place, "/collect"))

        def workers() -> set[int]:
            return children(server.pid)

        def one_more() -> None:
            many = len(workers())
            os.kill(server.pid, signal.SIGTTIN)
            wait(lambda: len(workers()) > many, "one more worker")
            collect(workers())

        wait(lambda: get(place, "/") and len(workers()) == WORKERS, "gunicorn to listen")
        collect(workers())
        yield Family(group, server.pid, workers, one_more)


def frozen(group: Path, folder: Path) -> AbstractContextManager[Family]:
    """Run the same gunicorn after gc.freeze()."""
    return gunicorn(group, folder, freeze=True)


def get(place: Path, path: str) -> int:
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(PATIENCE)
    with connection.sock:
        connection.sock.connect(str(place))
        connection.request("GET", path, headers={"Connection": "close"})
        return int(connection.getresponse().read())


# ---- a data loader

LOADER = '''
import json, multiprocessing, sys
from multiprocessing import shared_memory
name = sys.argv[1]
size, workers, unlink = map(int, sys.argv[2:])
def load(data, ready):
    batch = data if unlink else shared_memory.SharedMemory(name)
    total = sum(batch.buf[::4096])
    own = bytearray(b"d" * (2 << 20))
    ready.send(total)
    ready.recv()
if __name__ == "__main__":
    data = shared_memory.SharedMemory(name, create=True, size=size)
    data.buf[:] = b"x" * size
    def worker():
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=load, args=(data, theirs), daemon=True)
        process.start()
        assert ours.recv() == ord("x") * (size // 4096)
        started.append((process, ours))
        return process.pid
    started = []
    for _ in range(workers):
        worker()
    if unlink:
        data.unlink()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(worker(), flush=True)
'''


@contextmanager
def loader(
    group: Path, folder: Path, *, size: int = LOADED, unlink: bool = False
) -> Iterator[Family]:
    """Run a data loader: its workers read one batch in shared memory, which has a name."""
    (folder / "loader.py").write_text(LOADER)
    words = (sys.executable, "-I", "loader.py", group.name, size, LOADERS, int(unlink))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running(group, *words, cwd=folder, **pipes) as process:
        heard(process)

        def one_more() -> None:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            started.append(heard(process))

        started: list[int] = []
        (tracker,) = [pid for pid in children(process.pid)
                      if b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        yield Family(group, process.pid, lambda: children(process.pid) - {tracker},
                     one_more, None if unlink else Path("/dev/shm", group.name))


def unlinked(group: Path, folder: Path, size: int = LOADED) -> AbstractContextManager[Family]:
    """Run the same data loader after the name was removed, as torch does."""
    return loader(group, folder, size=size, unlink=True)


# ---- a JVM

PARENT = '''
class Parent {
    public static void main(String[] args) throws Exception {
        byte[][] kept = new byte[32][];
        for (int i = 0; i < kept.length; i++)
            kept[i] = new byte[1 << 20];
        for (int i = 0; i < 3; i++)
            new ProcessBuilder("sleep", "3600").start();
        System.out.println("1");
        Thread.sleep(Long.MAX_VALUE);
    }
}
'''


@contextmanager
def java(group: Path, folder: Path) -> Iterator[Family]:
    """Run a JVM that has started three children."""
    (folder / "Parent.java").write_text(PARENT)
    words = ("java", "-Xmx64m", "-XX:+UseSerialGC", "Parent.java")
    with running(group, *words, cwd=folder, stdout=subprocess.PIPE) as process:
        heard(process)
        yield Family(group, process.pid)


# ---- a browser


@contextmanager
def chromium(group: Path, folder: Path) -> Iterator[Family]:
    """Run Chromium, headless: a browser, zygotes, services and renderers."""
    page = folder / "page.html"
    page.write_text("<!doctype html><title>hello</title><p>Hello, world!</p>\n")
    words = ("chromium", *CHROMIUM_FLAGS, f"--user-data-dir={folder}/profile", f"file://{page}")
    with running(group, *words) as process:
        wait(lambda: any(b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()
                         for pid in members(group)), "Chromium to show its page")
        yield Family(group, process.pid)


PROGRAMS: dict[str, Callable[[Path, Path], AbstractContextManager[Family]]] = {
    "postgresql": postgresql, "redis": redis, "gunicorn": gunicorn, "frozen": frozen,
    "loader": loader, "unlinked": unlinked, "java": java, "chromium": chromium,
}
