"""A Java virtual machine, and PostgreSQL with shared_buffers and clients."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from experiments.family import Family, alone
from experiments.programs import HERE, folder, running, wait

HEAP = "256m"
BUFFERS = "128MB"
# About 26 MiB: for a table larger than a quarter of the buffers, a scan uses only 256 KiB.
ROWS = 200_000
CLIENTS = 4


@contextmanager
def jvm() -> Iterator[Family]:
    """Run Wait.java with a heap of at most HEAP."""
    command = ["java", f"-Xmx{HEAP}", "-XX:+UseSerialGC", HERE / "Wait.java"]
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield alone("java", process.pid)


@contextmanager
def postgresql() -> Iterator[Family]:
    """Run a new, separate cluster, with clients that have each read all of one table."""
    user = pwd.getpwnam("postgres")
    bin_folder = newest_server()
    with tempfile.TemporaryDirectory(dir=folder()) as name, ExitStack() as stack:
        os.chown(name, user.pw_uid, user.pw_gid)
        options = {"user": user.pw_uid, "group": user.pw_gid, "cwd": name, "umask": 0o077,
                   "extra_groups": (), "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        data = f"{name}/data"
        subprocess.run([bin_folder / "initdb", "-A", "trust", "-D", data], check=True,
                       **options, **quiet)
        server = [bin_folder / "postgres", "-D", data, "-k", name, "-c", "listen_addresses=",
                  "-c", f"shared_buffers={BUFFERS}", "-c", "autovacuum=off",
                  "-c", "max_parallel_workers_per_gather=0",
                  # What it has in /dev/shm would stay there when it is killed.
                  "-c", "dynamic_shared_memory_type=mmap"]
        main = stack.enter_context(running(server, **options, **quiet))
        ready = [bin_folder / "pg_isready", "-q", "-h", name]
        wait(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL to listen")
        psql = ["psql", "-q", "-h", name, "-d", "postgres"]
        make = f"create table t as select i, repeat('x', 100) from generate_series(1, {ROWS}) i"
        subprocess.run([*psql, "-c", make], check=True, **options)
        for _ in range(CLIENTS):
            client = stack.enter_context(
                running(psql, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
            )
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write(b"select count(*) from t;\n")
            client.stdin.flush()
            while f" {ROWS}\n".encode() != client.stdout.readline():
                pass
        yield lambda: family(main.pid)


def newest_server() -> Path:
    """Return the directory of PostgreSQL's own programs, which Debian leaves out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if not found:
        raise FileNotFoundError("PostgreSQL's server is missing: python -m experiments --setup")
    if not shutil.which("psql"):
        raise FileNotFoundError("psql is missing: python -m experiments --setup")
    return found[-1]


def family(pid: int) -> list[tuple[str, int]]:
    """Return the server's processes; each command line says what the process is."""
    rows = [("postmaster", pid)]
    clients = 0
    for child in psutil.Process(pid).children():
        title = " ".join(child.cmdline()).removeprefix("postgres: ").strip()
        if "[local]" in title:
            clients += 1
            title = f"client {clients}"
        rows.append((title, child.pid))
    return rows
