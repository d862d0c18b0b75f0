"""Hello world and top: the report's small targets."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from experiments.family import Family, alone
from experiments.programs import program, running


@contextmanager
def said_hello(path: object) -> Iterator[Family]:
    with running([path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"Hello, world!\n"
        yield alone("hello", process.pid)


@contextmanager
def hello() -> Iterator[Family]:
    """Run hello world, dynamically linked."""
    with said_hello(program("hello")) as family:
        yield family


@contextmanager
def hello_static() -> Iterator[Family]:
    """Run hello world, statically linked."""
    with said_hello(program("hello", "-static")) as family:
        yield family


@contextmanager
def top() -> Iterator[Family]:
    """Run top in its own terminal; it draws one screen, and the next an hour later."""
    ours, its = pty.openpty()
    try:
        environment = {"TERM": "xterm", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        command = ["top", "-d", "3600"]
        options = {"stdin": its, "stdout": its, "stderr": its, "env": environment}
        with running(command, start_new_session=True, **options) as process:
            drawn = b""
            while b"COMMAND" not in drawn:
                drawn += os.read(ours, 1 << 16)
            yield alone("top", process.pid)
    finally:
        os.close(its)
        os.close(ours)
