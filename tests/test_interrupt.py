"""A Ctrl-C at any moment: exit code 130 and one line, or silence, but no traceback of ours."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.documents import ROOT
from tests.targets import asleep

PROGRAMS = {"pagewalk": ROOT / "scripts/program.py", "-m pagewalk": "-m"}
MOMENTS, ROUNDS = 34, 8
PATIENCE = 240
LINE = "pagewalk: interrupted; nothing was changed\n"


@pytest.fixture(scope="module")
def sleeper() -> Iterator[str]:
    """Return the pid of a process that does nothing."""
    process = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    try:
        asleep(process.pid, "sleep")
        yield str(process.pid)
    finally:
        process.kill()
        process.wait()


def interrupted(words: list[str], after_s: float) -> tuple[int, str]:
    """Run a command and interrupt it after ``after_s`` seconds; return its exit code and stderr."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


def before_our_first_line(err: str) -> bool:
    """Return whether Python was still starting: no frame is in a file of ours.

    Our first line is that of scripts/program.py. With -m it is that of __main__: runpy imports the
    package before it, and the package must leave signals to the users of the library.
    """
    ours = r'File "[^"]*(/src/pagewalk/(?!__init__\.py)|program\.py)'
    starting = "Traceback" in err or err.startswith("Fatal Python error: init_")
    return starting and not re.search(ours, err)


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_moment_gives_a_traceback(program: str, sleeper: str) -> None:
    name = str(PROGRAMS[program])
    words = [sys.executable, name, *(["pagewalk"] if name == "-m" else []), "show", sleeper]
    # On a machine that becomes busier in the meantime no command may get past its start.
    for _ in range(ROUNDS):
        span_s = seconds(words)
        ended = [interrupted(words, span_s * n / MOMENTS) for n in range(MOMENTS)]
        check_endings(ended)
        if (130, LINE) in ended:
            break
    assert (130, LINE) in ended


def seconds(words: list[str]) -> float:
    """Return how long a command takes now."""
    begin = time.monotonic()
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE,
                   check=False)
    return time.monotonic() - begin


def check_endings(ended: list[tuple[int, str]]) -> None:
    ours = [(code, err) for code, err in ended if not before_our_first_line(err)]
    # -2: the signal killed Python before it had a handler; 0 and 3: the walk was faster.
    odd = [(code, err) for code, err in ours
           if (code, err) not in ((130, LINE), (130, ""), (-2, ""))
           and not (code in (0, 3) and "Traceback" not in err)]
    assert odd == []


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    # As with `pagewalk ... &` in a script, where Ctrl-C is meant for something else.
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" \
           "import pagewalk.__main__\n" \
           "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_importing_the_library_changes_no_signal() -> None:
    code = "import signal, pagewalk, pagewalk.cli\n" \
           "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
