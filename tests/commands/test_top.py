"""`top` in a real terminal: keys, and whatever ends it, the terminal is as before."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import termios

import pytest

from tests.commands.test_watch import PAGEWALK, Window, given_back

FOOT = "q quit"


def opened(windows: list[Window], *words: str, watch: str = "1000") -> Window:
    """Return a window with `top`, and how its terminal was before: ``usual``."""
    windows.append(Window("top", *words, "--watch", watch))
    windows[-1].until(FOOT)
    return windows[-1]


def settings(window: Window) -> list[object]:
    return termios.tcgetattr(window.ours)


def press(window: Window, key: bytes, pattern: str) -> None:
    """Press a key, and wait until it has drawn ``pattern``."""
    before = len(window.said)
    window.press(key)
    window.until(f"(?s){pattern}.*{FOOT}|{FOOT}.*{pattern}", before)


def test_keys_are_obeyed_long_before_the_next_round(
    sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    window = opened(windows, str(sleeper.pid), str(os.getpid()))
    press(window, b"s", "sort: pss")
    press(window, b"s", "sort: rss")
    press(window, b"\x1b[B", f"> *{sleeper.pid} ")  # smaller than this one
    press(window, b"\r", f"{sleeper.pid}: sleep 1000")
    press(window, b"b", "PROGRAM")
    press(window, b"bb", "CGROUP|by: mapping")
    press(window, b"b", "MAPPING|PID")
    press(window, b"h", "by:")
    window.press(b"q")
    assert window.end() == 0
    assert "q quit" not in given_back(window.said)


ENDS = {"q": (b"q", 0), "Ctrl-C": (b"\x03", 0), "SIGTERM": (signal.SIGTERM, -signal.SIGTERM),
        "SIGHUP": (signal.SIGHUP, -signal.SIGHUP)}


@pytest.mark.parametrize("how", [*ENDS, "end of its target"])
def test_whatever_ends_it_the_terminal_is_given_back(
    how: str, sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    by, code = ENDS.get(how, (None, 2))
    # The terminal is kept open here: its settings would go with its last user.
    window = Window("-c", "read line; exec \"$@\"", "sh", *PAGEWALK, "top", str(sleeper.pid),
                    "--watch", "0.2" if by is None else "1000", words=["sh"])
    windows.append(window)
    usual = settings(window)
    window.press(b"\n")
    window.until(FOOT)
    assert settings(window) != usual
    if by is None:
        sleeper.kill()
        sleeper.wait()
    elif isinstance(by, bytes):
        window.press(by)
    else:
        window.process.send_signal(by)
    ended = window.end()
    assert ended == code or (by is None and ended in (2, 5)), window.said
    assert settings(window) == usual
    given_back(window.said)


def test_ctrl_z_gives_it_back_and_fg_takes_it_again(
    sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    command = shlex.join([*PAGEWALK, "top", str(sleeper.pid), "--watch", "1000"])
    script = f"set -m; stty -g; {command}; stty -g; echo stop''ped; fg; stty -g; echo ended with $?"
    windows.append(Window("-c", script, words=["bash"]))
    window = windows[-1]
    window.until(FOOT)
    window.press(b"\x1a")
    window.until("stopped")
    before = window.said.index("stopped")
    window.until(f"(?s){FOOT}", before)
    press(window, b"s", "sort: pss")
    window.press(b"q")
    window.until("ended with 0", before)
    window.end()
    modes = re.findall(r"(?m)^[0-9a-f]+(?::[0-9a-f]+){10,}(?=\r?$)", window.said)
    assert len(modes) == 3 and len(set(modes)) == 1


def test_the_screen_follows_its_window_at_once(
    sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    window = opened(windows, str(sleeper.pid))
    before = len(window.said)
    window.resize(40)
    window.until(f"{FOOT}[^~]{{0,40}}~", before)
    window.press(b"q")
    assert window.end() == 0


def test_without_a_keyboard_it_is_drawn_all_the_same(
    sleeper: subprocess.Popen[bytes], windows: list[Window]
) -> None:
    command = shlex.join([*PAGEWALK, "top", str(sleeper.pid), "--watch", "0.1"])
    windows.append(Window("-c", f"{command} < /dev/null", words=["sh"]))
    window = windows[-1]
    window.screens(3)
    window.press(b"\x03")
    window.end()
    assert FOOT not in window.said


def test_in_a_pipe_there_is_one_screen_and_no_sequence(sleeper: subprocess.Popen[bytes]) -> None:
    ran = subprocess.run([*PAGEWALK, "top", str(sleeper.pid)], capture_output=True, text=True,
                         stdin=subprocess.DEVNULL, check=False)
    assert ran.returncode in (0, 3) and ran.stdout.count("PID") == 1
    assert "\x1b" not in ran.stdout and FOOT not in ran.stdout
