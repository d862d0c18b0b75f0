"""--watch in a real terminal: drawn in place, and whatever ends it, the terminal is as before."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from pagewalk.render.redrawn import ENTER, HOME, LEAVE

PAGEWALK = [sys.executable, "-m", "pagewalk"]
PATIENCE = 60.0  # seconds, for a command that hangs
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMANDS = (["show"], ["maps"], ["maps", "--by", "kind"], ["explain"], ["heap"], ["processes"],
            ["overview"])


class Window:
    """A terminal with a pagewalk on it: ``said`` is everything that it has drawn."""

    def __init__(self, *args: str, words: list[str] = PAGEWALK, **environ: str) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(80)
        unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
        usual = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            [*words, *args], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            env={**usual, "TERM": "xterm", **environ},
        )
        os.close(theirs)
        self.said = ""

    def resize(self, columns: int) -> None:
        """Give the window another width, as a terminal emulator does."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def read(self, wait: float) -> bool:
        """Read what it draws within ``wait`` seconds; return whether it may go on."""
        if not select.select([self.ours], [], [], wait)[0]:
            return True
        try:
            self.said += os.read(self.ours, 1 << 16).decode()
        except OSError:  # its other end is closed
            return False
        return True

    def until(self, pattern: str, after: int = 0) -> None:
        """Wait until it has drawn ``pattern``, somewhere ``after`` what it had drawn by then."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.said[after:]):
            assert time.monotonic() < deadline and self.read(1), self.said
        assert "Traceback" not in self.said

    def screens(self, count: int) -> None:
        """Wait for ``count`` more screens, whole ones."""
        self.until(f"(?s)({re.escape(HOME)}.*?\x1b\\[J.*?){{{count}}}", len(self.said))

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self.ours, key)

    def end(self) -> int:
        """Read the rest, and return how it ended."""
        while self.read(PATIENCE):
            assert "Traceback" not in self.said
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End it in any case."""
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


def watching(windows: list[Window], words: list[str], pid: int, **environ: str) -> Window:
    target = [] if words[0] in ("processes", "overview") else [str(pid)]
    windows.append(Window(*words, *target, "--watch", "0.1", **environ))
    return windows[-1]


def given_back(said: str) -> str:
    """Return what is on the terminal below what was there before: the last screen, and messages."""
    assert said.count(ENTER) == said.count(LEAVE) >= 1
    assert said.rindex(LEAVE) > said.rindex(ENTER)
    left = said[said.rindex(LEAVE) + len(LEAVE) :]
    assert HOME not in left
    return COLOUR.sub("", left).replace("\r\n", "\n")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_ctrl_c_is_the_usual_end(
    words: list[str], sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    window = watching(windows, words, sleeper.pid)
    window.screens(3)
    window.press(b"\x03")
    assert window.end() == 0
    left = given_back(window.said)
    assert left.replace("^C", "").count("\n") > 3 and "pagewalk:" not in left.split("\n", 1)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_as_that_signal_does(
    number: int, sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    window = watching(windows, ["show"], sleeper.pid)
    window.screens(2)
    window.process.send_signal(number)
    assert window.end() == -number
    assert given_back(window.said).startswith(f"process {sleeper.pid} (sleep)")


@pytest.mark.parametrize("words", [["show"], ["maps"], ["explain"], ["heap"]], ids=" ".join)
def test_a_target_that_ends_is_a_message_and_exit_code_5(
    words: list[str], sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    window = watching(windows, words, sleeper.pid)
    window.screens(2)
    sleeper.kill()
    sleeper.wait()
    assert window.end() == 5
    assert re.search(rf"pagewalk: process {sleeper.pid} .*\n$", given_back(window.said))


def test_the_screen_follows_its_window_at_once(
    sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    windows.append(Window("maps", str(sleeper.pid), "--watch", "1000"))
    window = windows[-1]
    window.until(re.escape("\x1b[J"))
    before = len(window.said)
    window.resize(200)
    window.until(r"NOT PRES.*HUGETLB", before)  # there is room for all columns, long before a round
    window.resize(40)
    window.until("hidden, terminal too narrow", before)
    window.press(b"\x03")
    assert window.end() == 0
    given_back(window.said)


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(
    sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    # A shell with jobs: a process that no shell of its session has started cannot be stopped.
    command = shlex.join([*PAGEWALK, "show", str(sleeper.pid), "--watch", "1000"])
    script = f"set -m; {command}; echo stop''ped; fg; echo ended with $?"
    windows.append(Window("-c", script, words=["bash"]))
    window = windows[-1]
    window.until(re.escape("\x1b[J"))
    window.press(b"\x1a")
    window.until("stopped")
    before = window.said.index("stopped")  # fg may have followed already
    assert given_back(window.said[:before]).startswith(f"process {sleeper.pid} (sleep)")
    # Ctrl-Z may have come in the middle of a screen: its rest is drawn first.
    again = f"{re.escape(ENTER)}.*{re.escape(HOME)}.*process {sleeper.pid}"
    window.until(f"(?s){again}.*\x1b\\[J", before)
    window.press(b"\x03")
    window.until("ended with 0", before)
    window.end()


def test_what_has_changed_is_in_bold(windows: list[Window]) -> None:
    code = ("import mmap, time\nheld = []\nwhile True:\n  held.append(bytes(64 << 10))\n"
            "  time.sleep(0.02)")
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            window = watching(windows, ["maps", "--by", "kind", "--kib"], process.pid)
            window.until(r"(?s)\x1b\[J.*\x1b\[1m[0-9 ]+\x1b\[0m.*total")
            window.press(b"\x03")
            assert window.end() == 0
        finally:
            process.kill()


def test_without_sequences_there_are_none(
    sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    window = watching(windows, ["show"], sleeper.pid, TERM="dumb")
    window.until(f"(?s)(process {sleeper.pid}.*){{3}}")
    window.press(b"\x03")
    assert window.end() == 0
    assert "\x1b" not in window.said
