"""Run the real command, as a user would, and read what it wrote."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from pagewalk.cli import main

PAGEWALK = (sys.executable, "-m", "pagewalk")
PATIENCE = 240.0  # seconds: meant for a command that hangs, not for a slow machine


@dataclass(frozen=True)
class Ran:
    """A finished command: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return the JSON document on standard output."""
        return json.loads(self.out)


def pagewalk(*args: object, before: tuple[str, ...] = (), **options: Any) -> Ran:
    """Run pagewalk with ``args``; ``before`` are words in front of it, as of setpriv or sh."""
    return run(*before, *PAGEWALK, *args, **options)


def pagewalk_here(*args: object) -> Ran:
    """Run pagewalk inside this process, so that no other program starts and maps libc."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([str(arg) for arg in args])
    return Ran(code, out.getvalue(), err.getvalue())


def run(*words: object, **options: Any) -> Ran:
    """Run a command to its end; it must never print a traceback."""
    done = subprocess.run(
        [str(word) for word in words], check=False, capture_output=True, timeout=PATIENCE, **options
    )
    return checked(done.returncode, done.stdout, done.stderr)


def checked(code: int, *written: bytes | None) -> Ran:
    out, err = ((text or b"").decode(errors="surrogateescape") for text in written)
    assert "Traceback" not in err, err
    return Ran(code, out, err)


def begin(*args: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start pagewalk with pipes for its output; it blocks in mid-walk once the pipe is full."""
    words = [*PAGEWALK, *map(str, args)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def end(process: subprocess.Popen[bytes]) -> Ran:
    """Read the rest of a started pagewalk's output, and return how it ended."""
    out, err = process.communicate(None, PATIENCE)
    return checked(process.returncode, out, err)


def one_sentence(ran: Ran) -> str:
    """Return the only line on standard error, without its prefix."""
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("pagewalk: "), ran.err
    return lines[0].removeprefix("pagewalk: ")
